#!/usr/bin/env python3
"""Render the scenes that `salientd demo` looks at.

Each scene is one function that takes a random generator and returns a picture,
sRGB in [0, 1], shape [H, W, 3]. `develop` makes it look like a 640x480 photo (lens
blur, vignette, grain). The subject stands off centre, so that the map has a place
to find. The files depend on nothing but this one and the versions of numpy and Pillow.

    python tools/render_demo.py [--out assets/demo]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480
SS = 2  # supersampling per axis
W, H = WIDTH * SS, HEIGHT * SS
JPEG_QUALITY = 85


# --- pictures ---------------------------------------------------------------


def rgb(*values):
    """8-bit colour as float in [0, 1]."""
    return np.array(values, np.float32) / 255


def to_image(pixels):
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_array(image):
    return np.asarray(image, np.float32) / 255


def blur(pixels, radius):
    return to_array(to_image(pixels).filter(ImageFilter.GaussianBlur(radius)))


def over(below, above, alpha):
    """`above` (picture or colour) over `below`, alpha of shape [H, W]."""
    return below + (above - below) * alpha[..., None]


def smoothstep(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def fractal_noise(rng, height, width, cell, octaves=6, gain=0.5, stretch=1.0):
    """Value noise summed over octaves, in [0, 1]; `cell` is the coarsest period in px."""
    total, amplitude = np.zeros((height, width), np.float32), 1.0
    for _ in range(octaves):
        rows = int(height / cell) + 3
        columns = int(width / (cell * stretch)) + 3
        grid = Image.fromarray(rng.random((rows, columns), np.float32))
        total += amplitude * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        amplitude *= gain
        cell = max(cell / 2, 1)
    return (total - total.min()) / (total.max() - total.min())


def develop(rng, scene, vignette=0.28, grain=0.008):
    """What a lens and a sensor do: slight blur, darker corners, grain."""
    sharp = to_image(blur(scene, 0.6 * SS))
    picture = to_array(sharp.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    picture *= (1 - vignette * (x * x + y * y) ** 1.5 / 2.8)[..., None]
    noise = rng.normal(0, grain, (HEIGHT, WIDTH, 1)) + rng.normal(0, grain / 2, (HEIGHT, WIDTH, 3))
    return to_image(picture + noise)


def sky(rng, zenith, horizon, cover, horizon_row=H):
    """Blue gradient with clouds; `cover` in [0, 1] is how much of it they hide."""
    t = np.clip(np.arange(H) / horizon_row, 0, 1)[:, None, None] ** 1.3
    clear = zenith + (horizon - zenith) * np.repeat(t, W, 1)
    density = fractal_noise(rng, H, W, H / 2, 8, 0.52, stretch=1.8)
    light = 0.90 + 0.12 * fractal_noise(rng, H, W, H / 5, 5)
    alpha = 0.9 * smoothstep(0.78 - 0.5 * cover, 1.05 - 0.4 * cover, density)
    return over(clear, light[..., None] * rgb(252, 252, 254), alpha)


def blades(rng, picture, count, rows, length, tint, skip=None):
    """Grass blades from far (rows[0]) to near (rows[1]), dimmed by `tint`, none where `skip`."""
    image = to_image(picture)
    draw = ImageDraw.Draw(image)
    ys = np.sort(rng.uniform(*rows, count))
    for y in ys:
        x = rng.uniform(-20, W + 20)
        if skip is not None and skip(x, y):
            continue
        near = (y - rows[0]) / (rows[1] - rows[0])
        size = length[0] + (length[1] - length[0]) * near
        lean, tall = rng.normal(0, 0.45) * size, size * rng.uniform(0.5, 1.2)
        hue = rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15])
        base = (rgb(62, 104, 34), rgb(98, 142, 52), rgb(146, 160, 82))[hue]
        colour = base * rng.uniform(0.6, 1.15) * tint(x, y)
        mid = (x + lean * 0.3, y - tall * 0.6)
        thick = max(1, size * 0.07)
        fill = tuple(int(c) for c in np.clip(colour * 255, 0, 255))
        tip, other_side = (x + lean, y - tall), (mid[0] + thick, mid[1])
        draw.polygon([(x - thick, y), mid, tip, other_side, (x + thick, y)], fill)
    return to_array(image)


def evenly(_x, _y):
    """The tint of blades in plain light."""
    return 1.0


# --- golf ball --------------------------------------------------------------


def dimpled_normals(n, count=336, radius=0.088, steepness=2.6):
    """Unit normals [..., 3] tilted into dimples on a Fibonacci lattice, and where dimples are."""
    i = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / count), np.pi * (1 + 5**0.5) * i
    ring = np.sin(polar)
    centres = np.stack([np.cos(azimuth) * ring, np.cos(polar), np.sin(azimuth) * ring], -1)
    cosine = n @ centres.T
    nearest = centres[cosine.argmax(-1)]
    cosine = np.clip(cosine.max(-1), -1, 1)[..., None]
    inside = 1 - smoothstep(0.82 * radius, 1.08 * radius, np.arccos(cosine))
    tilted = n + steepness * inside * (nearest - n * cosine)
    return tilted / np.linalg.norm(tilted, axis=-1, keepdims=True), inside[..., 0]


def golf_ball(rng):
    """A ball lying in grass, sun from the upper left, background out of focus."""
    cx, cy, radius = 425 * SS, 268 * SS, 108 * SS
    horizon, foot = 120 * SS, cy + 0.9 * radius

    def shade(x, y):
        """Soft contact shadow, stretched away from the sun."""
        u, v = (x - cx - 0.45 * radius) / (1.35 * radius), (y - foot + 4 * SS) / (0.3 * radius)
        return 1 - 0.62 * np.exp(-1.2 * (u * u + v * v))

    y, x = np.mgrid[0:H, 0:W].astype(np.float32)
    far = fractal_noise(rng, H, W, 90 * SS, 4, stretch=1.5)[..., None]
    trees = rgb(30, 52, 28) + far * (rgb(128, 152, 96) - rgb(30, 52, 28))
    mottle = fractal_noise(rng, H, W, 30 * SS, 6, stretch=3)[..., None]
    lawn = rgb(58, 92, 34) + mottle * rgb(52, 52, 26)
    scene = over(trees, lawn, smoothstep(horizon - 10 * SS, horizon + 10 * SS, y))
    scene *= shade(x, y)[..., None]
    rows, lengths = (horizon + 10 * SS, H + 30 * SS), (5 * SS, 30 * SS)
    scene = blades(rng, scene, 26000, rows, lengths, shade)
    focus = smoothstep(horizon + 40 * SS, foot - 20 * SS, y)
    hazy = over(blur(scene, 12 * SS), blur(scene, 4 * SS), np.clip(2 * focus, 0, 1))
    scene = over(hazy, scene, np.clip(2 * focus - 1, 0, 1))

    r = int(radius) + 2
    v, u = np.mgrid[-r : r + 1, -r : r + 1] / radius
    rim2 = u * u + v * v
    n = np.stack([u, -v, np.sqrt(np.clip(1 - rim2, 0, 1))], -1)
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]  # so that no lattice pole faces the lens
    bent, dimple = dimpled_normals(n @ turn)
    bent = bent @ turn.T
    sun = np.array([-0.55, 0.68, 0.49]) / np.linalg.norm([-0.55, 0.68, 0.49])
    direct = np.clip(bent @ sun, 0, 1) * smoothstep(-0.15, 0.35, n @ sun)
    up = (bent[..., 1] * 0.5 + 0.5)[..., None]
    ambient = up * rgb(150, 160, 172) + (1 - up) * rgb(58, 74, 36)
    half = sun + [0, 0, 1]
    gloss = np.clip(bent @ (half / np.linalg.norm(half)), 0, 1) ** 60
    ambient *= 1 - 0.12 * dimple[..., None]
    ball = rgb(244, 244, 238) * (0.66 * direct[..., None] + 0.62 * ambient)
    ball += 0.22 * gloss[..., None]
    ball *= 1 - 0.45 * smoothstep(0.35, 1.0, v)[..., None]  # grass hides the sky from below
    alpha = smoothstep(1 + 1 / radius, 1 - 1 / radius, np.sqrt(rim2))
    window = np.s_[int(cy) - r : int(cy) + r + 1, int(cx) - r : int(cx) + r + 1]
    scene[window] = over(scene[window], ball, alpha)

    def behind(x, y):
        """Rooted behind the ball's contact with the ground, which tufts make uneven."""
        tufts = np.sin(x / (17 * SS)) + np.sin(x / (6.1 * SS) + 1) + np.sin(x / (2.7 * SS) + 2)
        return y < foot + 5 * SS + 3 * SS * tufts + rng.exponential(3 * SS)

    return blades(rng, scene, 26000, rows, lengths, shade, behind)


# --- parachute --------------------------------------------------------------


def parachute(rng):
    """A round canopy seen from a little below, and its jumper."""
    scene = sky(rng, rgb(52, 108, 182), rgb(150, 190, 226), 0.42)
    gores, rows, strips = 20, 22, 8
    cx, cy, radius = 415 * SS, 190 * SS, 135 * SS
    pitch, sway = np.radians(10), np.radians(7)
    sun = np.array([-0.5, 0.75, -0.43])

    def place(p):
        """Canopy frame (y up, z away from the lens) to picture x, y, depth."""
        x, y, z = p[..., 0], p[..., 1], p[..., 2]
        y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
        x, y = x * np.cos(sway) + y * np.sin(sway), y * np.cos(sway) - x * np.sin(sway)
        return np.stack([cx + radius * x, cy - radius * y, z], -1)

    def dome(azimuth, t):
        """Crown at t = 0, hem at t = 1; the cloth bulges between the lines."""
        bulge = 1 + 0.07 * np.abs(np.sin(gores * azimuth / 2)) * t
        r = np.sin(t * 1.75) / np.sin(1.5) * bulge
        lift = 0.80 * np.cos(t * 1.75) - 0.05 * (np.abs(np.cos(gores * azimuth / 2)) * t**8)
        return np.stack([r * np.cos(azimuth), lift, r * np.sin(azimuth)], -1)

    azimuth = np.arange(gores * strips + 1) * 2 * np.pi / (gores * strips)
    points = dome(azimuth[None], np.linspace(0.05, 1, rows + 1)[:, None])
    screen = place(points)
    jumper = np.array([0.0, -1.75, 0.0])
    knot = place(jumper + [0, 0.16, 0])

    image = to_image(scene)
    draw = ImageDraw.Draw(image)

    def line(a, b, colour, width):
        draw.line([tuple(a[:2]), tuple(b[:2])], colour, width)

    def rig(far):
        for hem in screen[-1, :-1:strips]:
            if (hem[2] > 0) == far:
                line(hem, knot, (52, 56, 66) if far else (226, 228, 230), SS)

    red, white, blue = rgb(214, 40, 36), rgb(244, 240, 230), rgb(30, 70, 160)
    faces = []
    for i in range(rows):
        for j in range(gores * strips):
            quad = points[[i, i, i + 1, i + 1], [j, j + 1, j + 1, j]]
            flat = screen[[i, i, i + 1, i + 1], [j, j + 1, j + 1, j]]
            normal = np.cross(quad[2] - quad[0], quad[3] - quad[1])
            normal /= np.linalg.norm(normal)
            normal *= np.sign(normal @ (quad.mean(0) + [0, 0.2, 0]))
            (ax, ay), (bx, by) = flat[2, :2] - flat[0, :2], flat[3, :2] - flat[1, :2]
            lit = np.clip(normal @ sun, 0, 1)
            gore, band = j // strips, i / rows
            dye = (red, white, blue, white)[gore % 4]
            if 0.80 < band < 0.88:
                dye = rgb(246, 190, 40)
            seam = 0.86 if j % strips in (0, strips - 1) else 1.0
            outside = ax * by - ay * bx > 0
            glow = 0.50 + 0.58 * lit if outside else 0.36 + 0.22 * lit
            faces.append((flat[:, 2].mean(), flat[:, :2], dye * glow * seam))
    faces.sort(key=lambda face: -face[0])

    rig(far=True)
    for _, quad, colour in faces:
        fill = tuple(int(c) for c in np.clip(colour * 255, 0, 255))
        draw.polygon([tuple(p) for p in quad], fill, fill)
    rig(far=False)
    draw_jumper(draw, knot[:2])
    return to_array(image)


def draw_jumper(draw, knot):
    """A small figure hanging in its harness, `knot` above the shoulders."""

    def at(x, y):
        return (knot[0] + x * SS, knot[1] + y * SS)

    suit, dark, skin = (44, 50, 62), (26, 28, 34), (206, 160, 130)
    for side in (-1, 1):
        draw.line([at(0, 0), at(5 * side, 14)], (220, 220, 220), SS)
        draw.line([at(6 * side, 15), at(11 * side, 8), at(4 * side, 2)], suit, 4 * SS)
        draw.line([at(3 * side, 34), at(6 * side, 47), at(5 * side, 60)], suit, 5 * SS)
        draw.line([at(5 * side, 60), at(8 * side, 62)], dark, 5 * SS)
    draw.rounded_rectangle([*at(-7, 13), *at(7, 37)], 4 * SS, suit)
    draw.rectangle([*at(-5, 16), *at(5, 28)], (168, 44, 36))
    draw.ellipse([*at(-4, 3), *at(4, 13)], skin)
    draw.pieslice([*at(-5, 1), *at(5, 12)], 180, 360, dark)


# --- church -----------------------------------------------------------------

TEXELS_PER_M = 40


class Camera:
    """Pinhole that looks level, so that verticals stay vertical."""

    def __init__(self, eye, target, focal_px, centre_px):
        self.eye = np.array(eye, float)
        forward = np.array([target[0] - eye[0], target[1] - eye[1]], float)
        self.forward = forward / np.linalg.norm(forward)
        self.right = np.array([self.forward[1], -self.forward[0]])
        self.focal, self.centre = focal_px, centre_px

    def project(self, point):
        offset = np.asarray(point, float) - self.eye
        scale = self.focal / (offset[:2] @ self.forward)
        x = self.centre[0] + scale * (offset[:2] @ self.right)
        return x, self.centre[1] - scale * offset[2]

    def paste(self, image, corners, texture):
        """Warp an RGBA texture onto a quad, anticlockwise from its bottom left corner."""
        w, h = texture.size
        rows, wanted = [], []
        texels = [(0, h), (w, h), (w, 0), (0, 0)]
        for (x, y), (u, v) in zip(map(self.project, corners), texels):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            wanted += [u, v]
        coefficients = np.linalg.solve(np.array(rows), np.array(wanted))
        kind, filtering = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
        image.alpha_composite(texture.transform((W, H), kind, tuple(coefficients), filtering))


def masonry(rng, width_m, height_m, light, course_m=0.32):
    """Coursed stone, RGBA; `light` scales it."""
    w, h = int(width_m * TEXELS_PER_M), int(height_m * TEXELS_PER_M)
    base = rgb(206, 190, 162) * light
    wear = 0.80 + 0.34 * fractal_noise(rng, h, w, 2.5 * TEXELS_PER_M, 7, 0.62)
    image = to_image(base * wear[..., None])
    draw = ImageDraw.Draw(image, "RGBA")
    course = course_m * TEXELS_PER_M
    for row in range(int(h / course) + 1):
        x = -rng.uniform(0, 30)
        while x < w:
            length = rng.uniform(1.3, 3.0) * course
            tone = int(rng.normal(0, 26))
            fill = (255, 244, 220, tone) if tone > 0 else (40, 32, 22, -tone)
            block = [x, row * course, x + length, (row + 1) * course]
            draw.rectangle(block, fill, (70, 60, 48, 70))
            x += length
    return image.convert("RGBA")


def roofing(rng, width_m, height_m, light):
    """Slates, RGBA."""
    w, h = int(width_m * TEXELS_PER_M), int(height_m * TEXELS_PER_M)
    wear = 0.78 + 0.4 * fractal_noise(rng, h, w, 2 * TEXELS_PER_M, 7, 0.6)
    image = to_image(rgb(96, 98, 108) * light * wear[..., None])
    draw = ImageDraw.Draw(image, "RGBA")
    for y in range(0, h, 12):
        draw.line([(0, y), (w, y)], (20, 20, 26, 110), 2)
    return image.convert("RGBA")


def arch(texture, centre_m, sill_m, width_m, height_m, kind="window"):
    """Paint a pointed opening with a stone surround on a wall texture."""
    draw = ImageDraw.Draw(texture)

    def outline(grow):
        half, spring = width_m / 2 + grow, height_m - width_m * 0.85
        angle = np.linspace(0, np.pi / 3, 12)
        right = [(half * (2 * np.cos(a) - 1), spring + 2 * half * np.sin(a)) for a in angle]
        shape = [(-half, -grow), (half, -grow), *right, *[(-x, y) for x, y in right[::-1]]]
        return [
            ((centre_m + x) * TEXELS_PER_M, texture.height - (sill_m + y) * TEXELS_PER_M)
            for x, y in shape
        ]

    fill, bar = {
        "window": ((44, 52, 66, 255), (190, 180, 160, 255)),
        "door": ((84, 46, 28, 255), (48, 26, 16, 255)),
        "louvre": ((40, 36, 34, 255), (104, 96, 86, 255)),
    }[kind]
    draw.polygon(outline(0.22), (228, 216, 192, 255))
    draw.polygon(outline(0.04), (92, 82, 68, 255))
    draw.polygon(outline(0.0), fill)
    x, bottom = centre_m * TEXELS_PER_M, texture.height - sill_m * TEXELS_PER_M
    tall, half = height_m * TEXELS_PER_M, width_m * TEXELS_PER_M / 2
    if kind != "louvre":
        draw.line([(x, bottom), (x, bottom - tall * 0.95)], bar, 4)
    for step in np.arange(0.18, 0.8, 0.11 if kind == "louvre" else 0.2):
        if kind != "door":
            y = bottom - tall * step
            draw.line([(x - half, y), (x + half, y)], bar, 4)


def gable(texture):
    """Cut a wall texture to a triangle."""
    w, h = texture.size
    mask = Image.new("L", (w, h))
    ImageDraw.Draw(mask).polygon([(0, h), (w, h), (w / 2, 0)], 255)
    texture.putalpha(mask)
    return texture


def tree(rng, image, x, foot, height, spread):
    """Clumps of leaves, lit from the upper left, on a trunk."""
    draw = ImageDraw.Draw(image)
    wide, slim, crown = height * 0.03, height * 0.012, foot - height * 0.6
    trunk = [(x - wide, foot), (x + wide, foot), (x + slim, crown), (x - slim, crown)]
    draw.polygon(trunk, (58, 46, 34))
    clumps = np.clip(rng.normal(0, 0.45, 80), -0.85, 0.85), rng.uniform(-1, 1, 80)
    for u, v in sorted(zip(*clumps), key=lambda clump: clump[1]):
        reach = np.sqrt(max(1 - v * v, 0.05))
        px, py = x + u * spread * reach, foot - height * (0.62 + 0.36 * v)
        size = height * 0.11
        for _ in range(230):
            du, dv = rng.normal(0, 0.5, 2)
            shade = 0.56 - 0.26 * du - 0.30 * dv - 0.18 * u - 0.10 * v
            light = np.clip(shade + rng.normal(0, 0.16), 0.12, 1.15)
            colour = tuple(int(c) for c in np.array([92, 122, 52]) * light)
            r = rng.uniform(0.7, 1.7) * SS
            lx, ly = px + du * size, py + dv * size
            draw.ellipse([lx - r * 1.3, ly - r, lx + r * 1.3, ly + r], colour)


def church(rng):
    """A stone village church, seen from the corner of its yard."""
    horizon = 408 * SS
    image = to_image(sky(rng, rgb(74, 128, 196), rgb(196, 216, 232), 0.45, horizon)).convert("RGBA")
    camera = Camera((-21, -30, 1.7), (-1, 2), 500 * SS, (385 * SS, horizon))

    for x in range(-20, WIDTH + 30, 34):  # hedge at the far side of the yard
        tree(rng, image, x * SS + rng.normal(0, 8), 418 * SS, rng.uniform(40, 74) * SS, 34 * SS)
    mottle = fractal_noise(rng, H, W, 30 * SS, 7, 0.6, stretch=4)[..., None]
    ground = rgb(84, 118, 46) * (0.6 + 0.6 * mottle)
    lawn = to_array(image)[..., :3].copy()
    lawn[404 * SS : 416 * SS] = rgb(28, 42, 20) + 0.3 * (ground[: 12 * SS] - ground.mean())
    lawn[416 * SS :] = ground[416 * SS :]
    lawn = blades(rng, lawn, 16000, (418 * SS, H + 10), (2 * SS, 9 * SS), evenly)
    image = to_image(lawn).convert("RGBA")
    tree(rng, image, 60 * SS, 430 * SS, 210 * SS, 95 * SS)

    front, side = 1.02, 0.66  # sun over the right shoulder
    eaves, ridge, length, half = 7.0, 12.5, 20.0, 5.0

    def box(x0, x1, y0, y1, z0, z1, face, flank):
        """The two sides of a box that this camera sees."""
        camera.paste(image, [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)], flank)
        camera.paste(image, [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], face)

    nave = masonry(rng, length, eaves, side)
    for bay in range(5):
        arch(nave, 2.0 + 4.0 * bay, 1.8, 1.3, 4.0)
    west = masonry(rng, 2 * half, eaves, front)
    box(-half, half, 0, length, 0, eaves, west, nave)
    end = gable(masonry(rng, 2 * half, ridge - eaves, front))
    corners = [(-half, 0, eaves), (half, 0, eaves), (half, 0, ridge), (-half, 0, ridge)]
    camera.paste(image, corners, end)
    out, low = -half - 0.4, eaves - 0.3  # the roof overhangs
    slope = [(out, length, low), (out, -0.3, low), (0, -0.3, ridge), (0, length, ridge)]
    camera.paste(image, slope, roofing(rng, length, 7.5, 0.95))

    t, y0, y1, top = 2.6, -4.2, 1.0, 16.0  # tower
    face, flank = masonry(rng, 2 * t, top, front), masonry(rng, y1 - y0, top, side)
    arch(face, t, 0.1, 2.0, 3.6, "door")
    arch(face, t, 5.6, 1.5, 3.6)
    for wall in (face, flank):
        arch(wall, 1.6, 11.6, 1.1, 3.2, "louvre")
        arch(wall, 3.6, 11.6, 1.1, 3.2, "louvre")
    arch(flank, t, 5.6, 0.9, 2.8)
    box(-t, t, y0, y1, 0, top, face, flank)
    for z in (5.0, 10.6, top - 0.1):  # string courses
        proud = (-t - 0.15, t + 0.15, y0 - 0.15, y1 + 0.15, z, z + 0.4)
        box(*proud, masonry(rng, 5.4, 0.4, 1.12), masonry(rng, 5.4, 0.4, 0.76))

    draw = ImageDraw.Draw(image)
    apex = (0.0, (y0 + y1) / 2, 28.0)
    left, near, right = (-t, y1, top + 0.3), (-t, y0, top + 0.3), (t, y0, top + 0.3)
    for a, b, light in ((left, near, 0.62), (near, right, 0.98)):
        mask = Image.new("L", (W, H))
        ImageDraw.Draw(mask).polygon([camera.project(p) for p in (a, b, apex)], 255)
        slates = roofing(rng, W / TEXELS_PER_M, H / TEXELS_PER_M, light)
        image.paste(slates, (0, 0), mask)
    x, y = camera.project(apex)
    draw.line([(x, y + 4 * SS), (x, y - 26 * SS)], (52, 44, 34), 3 * SS)
    draw.line([(x - 8 * SS, y - 17 * SS), (x + 8 * SS, y - 17 * SS)], (52, 44, 34), 3 * SS)

    path = [camera.project(p) for p in ((-1, y0, 0), (1, y0, 0), (-5, -25, 0), (-9, -25, 0))]
    draw.polygon(path, (176, 164, 140))
    mask = Image.new("L", (W, H))
    ImageDraw.Draw(mask).polygon(path, 255)
    paved = np.asarray(mask) > 0
    tree(rng, image, 592 * SS, 434 * SS, 170 * SS, 62 * SS)

    def on_path(x, y):
        return paved[int(np.clip(y, 0, H - 1)), int(np.clip(x, 0, W - 1))]

    scene = to_array(image)[..., :3]
    return blades(rng, scene, 5000, (424 * SS, H + 10), (2 * SS, 9 * SS), evenly, on_path)


SCENES = {"golf_ball": golf_ball, "parachute": parachute, "church": church}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("assets/demo"), help="folder to fill")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, scene) in enumerate(SCENES.items()):
        rng = np.random.default_rng(seed)
        path = out / f"{name}.jpg"
        develop(rng, scene(rng)).save(path, quality=JPEG_QUALITY, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
