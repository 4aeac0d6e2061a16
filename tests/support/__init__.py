"""What tests share. Tests import nothing from each other."""
