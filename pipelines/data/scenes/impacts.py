"""Clips of scenes in which one object falls and bounces, with the sound of each strike; the label is its material.

bundled://impacts/train      400 clips, 100 of each of four materials: 12 frames of 48x48 pixels, 10 a second, and 1.2 s
                             of sound at 8 kHz
bundled://impacts/val        120 others; textures of the two splits share no pixel
bundled://silent/train       the same clips, without a sound; its val likewise
bundled://mismatched/train   the same clips, each with the sound of any clip of its split; its val likewise

    .mkv, .wav, .cls    what is seen, what is heard, the material of what falls
    .txt                such as "a large sphere of metal strikes twice beside a red box"

Sight tells the material by the color of what moves, which objects at rest may have, too; sound tells it by timbre. Both
tell when and how often the object strikes: in free fall, then at a share of its speed. Larger objects sound lower,
faster strikes louder. Nothing of the sounds is measured: they are sines that fade. A clip is a pure function of its
split and number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.pipelines.data.annotated import AnnotatedSample
from selfsup.pipelines.data.photographs import SPLITS
from selfsup.pipelines.data.scenes.draw import COLORS, FOCAL, SIDE, Draws, Shot, shot, tinted
from selfsup.pipelines.data.scenes.film import film
from selfsup.pipelines.data.scenes.render import Scene, render
from selfsup.pipelines.data.sounds import RATE as SAMPLE_RATE
from selfsup.pipelines.data.sounds import wav
from selfsup.pipelines.modalities.pixels.coding import jpeg

NUMBER = {"train": 400, "val": 120}
FRAMES, RATE = 12, 10
SECONDS = FRAMES / RATE
PIXELS, QUALITY = 48, 92
SHRUNK = 0.65  # of what falls, beside objects of `scenes`
LARGE = 0.65  # meters of the radius around a large object
GRAVITY = 9.81  # meters a second, each second
RELEASE, HEIGHT, BOUNCE = (0.0, 0.25), (0.5, 1.6), (0.45, 0.8)  # seconds; meters; share of the speed after a strike
REST = 0.5  # meters a second, below which it bounces no more
LOUDNESS, NOISE = (0.2, 0.8), (-50.0, -30.0)  # of a strike of 5 m/s, of the peak; decibels below that
TIMES = ("never", "once", "twice", "three times", "four times", "five times", "six times")


class Material(NamedTuple):
    """A material. hertz: the lowest partial of an object of LARGE, of which the others are multiples; fade: seconds."""

    color: str
    hertz: float
    multiples: tuple[float, ...]
    fade: float


MATERIALS = {
    "glass": Material("blue", 900.0, (1.0, 1.56, 2.4), 0.12),
    "metal": Material("white", 420.0, (1.0, 2.76, 5.4), 0.35),
    "rubber": Material("red", 110.0, (1.0, 1.6), 0.04),
    "wood": Material("yellow", 240.0, (1.0, 2.57, 4.8), 0.06),
}


class Fall(NamedTuple):
    """A fall from rest. release: in seconds. height: meters. bounce: the share of its speed after a strike."""

    release: float
    height: float
    bounce: float

    def strikes(self) -> list[tuple[float, float]]:
        """Return the time of each strike within a clip, in seconds, and its speed, in meters a second."""
        speed = float(np.sqrt(2 * GRAVITY * self.height))
        time, strikes = self.release + speed / GRAVITY, list[tuple[float, float]]()
        while time < SECONDS:
            strikes.append((time, speed))
            speed *= self.bounce
            if speed < REST:
                break
            time += 2 * speed / GRAVITY
        return strikes

    def height_at(self, time: float) -> float:
        """Return how many meters it is above the floor."""
        past = [strike for strike in self.strikes() if strike[0] <= time]
        if not past:
            return self.height - GRAVITY / 2 * max(0.0, time - self.release) ** 2
        since, speed = time - past[-1][0], self.bounce * past[-1][1]
        return max(0.0, speed * since - GRAVITY / 2 * since**2) if speed >= REST else 0.0


class Impact(NamedTuple):
    """A scene whose first object falls: the nearest to the camera."""

    shot: Shot
    material: str
    fall: Fall
    loudness: float
    noise: float

    @property
    def radius(self) -> float:
        """Return the radius of a ball around what falls, in meters."""
        return self.shot.scene.solids[0].radius

    def scene(self, time: float) -> Scene:
        """Return what is there at a time, in seconds."""
        first, *others = self.shot.scene.solids
        x, y, z = first.center
        moved = first._replace(center=(x, y + self.fall.height_at(time), z))
        return self.shot.scene._replace(solids=(moved, *others))


def samples(split: str, *, sound: str = "own") -> Iterator[AnnotatedSample]:
    """Yield the clips of a split. sound: own, none, or other, of any clip."""
    others = _shuffled(split) if sound == "other" else range(NUMBER[split])
    for number, other in enumerate(others):
        own = impact(split, number)
        heard = np.zeros(_length()) if sound == "none" else waveform(split, other)
        members = {"mkv": film(_frames(own), RATE, PIXELS), "wav": wav(heard), "txt": caption(own).encode()}
        yield AnnotatedSample(f"{number:04d}", members, list(MATERIALS).index(own.material))


def impact(split: str, number: int) -> Impact:
    """Return what happens in a clip."""
    draws, one = Draws(SPLITS.index(split), number, 3), _nearest_first(shot(split, number))
    material = list(MATERIALS)[number % len(MATERIALS)]
    fall = Fall(draws.between(*RELEASE), draws.between(*HEIGHT), draws.between(*BOUNCE))
    scene = _with_first(one.scene, COLORS[MATERIALS[material].color])
    return Impact(one._replace(scene=scene), material, fall, draws.between(*LOUDNESS), draws.between(*NOISE))


def waveform(split: str, number: int) -> NDArray[np.float64]:
    """-> (n,) in [-1, 1], at SAMPLE_RATE: the strikes of a clip, and noise"""
    own, sound = impact(split, number), np.zeros(_length())
    for time, speed in own.fall.strikes():
        start = round(time * SAMPLE_RATE)
        sound[start:] += own.loudness * speed / 5 * _ring(own, len(sound) - start)
    noise = np.random.Generator(np.random.PCG64((SPLITS.index(split), number, 4))).random(len(sound)) * 2 - 1
    return (sound + own.loudness * 10 ** (own.noise / 20) * noise).clip(-1, 1)


def caption(own: Impact) -> str:
    """Return what is seen and heard in a clip, in words."""
    first, *others = own.shot.objects
    size = "large" if own.radius >= LARGE else "small"
    beside = f" beside a {others[0].color} {others[0].category}" if others else ""
    return f"a {size} {first.category} of {own.material} strikes {TIMES[len(own.fall.strikes())]}{beside}"


def _ring(own: Impact, length: int) -> NDArray[np.float64]:
    """-> (length,), of at most 1: partials that fade, higher ones faster"""
    material, time = MATERIALS[own.material], np.arange(length) / SAMPLE_RATE
    partials = [
        np.sin(2 * np.pi * hertz * time) * np.exp(-time * np.sqrt(multiple) / material.fade)
        for multiple in material.multiples
        if (hertz := material.hertz * multiple * LARGE / own.radius) < SAMPLE_RATE / 2
    ]
    return np.asarray(np.sum(partials, axis=0) / len(material.multiples))


def _nearest_first(one: Shot) -> Shot:
    places = sorted(range(len(one.objects)), key=lambda place: one.scene.solids[place].center[2])
    wall, floor, *textures = one.scene.textures
    solids = tuple(one.scene.solids[place] for place in places)
    scene = one.scene._replace(solids=solids, textures=(wall, floor, *(textures[place] for place in places)))
    return one._replace(scene=scene, objects=tuple(one.objects[place] for place in places))


def _with_first(scene: Scene, color: tuple[float, float, float]) -> Scene:
    """Return a scene whose first object is smaller, and of a color."""
    (first, *others), (wall, floor, texture, *textures) = scene.solids, scene.textures
    (x, y, z), (width, height, length) = first.center, (SHRUNK * side for side in first.size)
    small = first._replace(center=(x, SHRUNK * y, z), size=(width, height, length))
    return scene._replace(solids=(small, *others), textures=(wall, floor, tinted(texture, color), *textures))


def _frames(own: Impact) -> list[bytes]:
    """Return what the camera sees, as JPEGs."""
    camera = own.shot.left._replace(size=PIXELS, focal=FOCAL * PIXELS / SIDE)
    return [jpeg(render(own.scene(number / RATE), camera), quality=QUALITY) for number in range(FRAMES)]


def _shuffled(split: str) -> list[int]:
    draws = Draws(SPLITS.index(split), 5)
    return [number for _, number in sorted((draws.between(0, 1), number) for number in range(NUMBER[split]))]


def _length() -> int:
    return round(SECONDS * SAMPLE_RATE)
