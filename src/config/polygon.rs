//! Which polygons are simple: the only ones that have an inside.

type Point = [f64; 2];

/// The first two sides (numbers from 0; side i begins at corner i) that meet where they
/// should not, the same number twice for a side without length; `None` for a simple polygon.
pub(super) fn crossing(corners: &[Point]) -> Option<(usize, usize)> {
    let n = corners.len();
    let side = |i: usize| (corners[i], corners[(i + 1) % n]);
    if let Some(i) = (0..n).find(|&i| side(i).0 == side(i).1) {
        return Some((i, i));
    }
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    pairs.into_iter().find(|&(i, j)| {
        let ((a, b), (c, d)) = (side(i), side(j));
        if (i + 1) % n == j {
            folds_back(a, b, d)
        } else if (j + 1) % n == i {
            folds_back(c, d, b)
        } else {
            meet(a, b, c, d)
        }
    })
}

/// Twice the area of a triangle: above 0 where it turns clockwise on a screen.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// Whether the way a, b, c comes back over itself.
fn folds_back(a: Point, b: Point, c: Point) -> bool {
    let along = (a[0] - b[0]) * (c[0] - b[0]) + (a[1] - b[1]) * (c[1] - b[1]);
    turn(a, b, c) == 0.0 && along > 0.0
}

/// Whether the segments ab and cd have a point in common.
fn meet(a: Point, b: Point, c: Point, d: Point) -> bool {
    let (p, q) = (turn(a, b, c), turn(a, b, d));
    let (r, s) = (turn(c, d, a), turn(c, d, b));
    let within = |a: Point, b: Point, p: Point| {
        (0..2).all(|k| a[k].min(b[k]) <= p[k] && p[k] <= a[k].max(b[k]))
    };
    (p * q < 0.0 && r * s < 0.0)
        || (p == 0.0 && within(a, b, c))
        || (q == 0.0 && within(a, b, d))
        || (r == 0.0 && within(c, d, a))
        || (s == 0.0 && within(c, d, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_simple_polygons_pass() {
        /// Name, corners, the two sides that meet.
        type Case = (&'static str, &'static [Point], Option<(usize, usize)>);
        let cases: &[Case] = &[
            ("triangle", &[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], None),
            ("the other way round", &[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]], None),
            ("arrow", &[[0.0, 0.0], [0.5, 0.2], [1.0, 0.0], [0.5, 1.0]], None),
            (
                "a corner on a straight side",
                &[[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [0.0, 1.0]],
                None,
            ),
            ("bow tie", &[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], Some((0, 2))),
            ("a corner twice", &[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], Some((0, 0))),
            ("no area", &[[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]], Some((0, 1))),
            ("there and back", &[[0.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0]], Some((0, 1))),
            (
                "touches its own side",
                &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.0, 1.0]],
                Some((0, 2)),
            ),
        ];
        for (name, corners, expected) in cases {
            assert_eq!(crossing(corners), *expected, "{name}");
        }
    }
}
