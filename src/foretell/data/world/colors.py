"""The colours of drawn things, far apart from one another and from every background."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "orange": (255, 140, 0),
    "yellow": (245, 215, 0),
    "green": (30, 150, 50),
    "blue": (30, 80, 230),
    "purple": (135, 40, 170),
    "pink": (255, 120, 190),
    "brown": (120, 70, 25),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "gray": (205, 208, 212),
    "black": (24, 26, 30),
}
