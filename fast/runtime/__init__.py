"""What every command needs: how it starts and ends, its output, its folders, its progress."""
