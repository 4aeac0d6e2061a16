from fast.runtime.counts import number_of


def test_one_is_not_several() -> None:
    assert [number_of(n, "pair") for n in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]
    assert [number_of(n, "image is", "images are") for n in (1, 11)] == ["1 image is", "11 images are"]
