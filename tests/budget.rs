//! Budget, rolling views, gate and heat on a real model: which views a frame gets, and what
//! becomes of its map.

mod common;

use common::{off, parity};
use proptest::prelude::*;
use salientd::config::{TtaConfig, parse};
use salientd::explain::{Explainer, Explanation};
use salientd::frame::Picture;
use salientd::model::Model;
use salientd::tta::View;
use std::sync::Arc;

const SIDE: usize = 64;

/// The parity model at `side` × `side` with this `[tta…]`, maps unfiltered.
fn explainer(side: usize, tta: &str) -> Explainer {
    let fixed =
        format!("[model]\nsize = [{side}, {side}]\nthreads = 2\n[heatmap]\nfilter = \"none\"");
    let config = parse(&format!("{fixed}\n{tta}"), "test").unwrap_or_else(|e| panic!("{e}"));
    let model = Model::load(&parity("model.onnx"), &config.model).unwrap();
    Explainer::new(Arc::new(model), &config).unwrap()
}

/// A smooth scene with a disc, another for every `scene`, with camera noise of σ = 2 levels.
fn shoot(side: usize, scene: u32, shot: u32) -> Picture {
    let mut picture = Picture::new(side, side);
    let mut state = 1 + u64::from(shot);
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let phase = scene as f32 * 1.7;
    let centre = [0.5 + 0.25 * phase.cos(), 0.5 + 0.25 * phase.sin()];
    for (i, pixel) in picture.rgb.chunks_exact_mut(3).enumerate() {
        let [x, y] = [i % side, i / side].map(|n| (n as f32 + 0.5) / side as f32);
        let inside = (x - centre[0]).hypot(y - centre[1]) < 0.2;
        for (c, value) in pixel.iter_mut().enumerate() {
            let wave = (4.0 * x + phase + c as f32).sin() + (5.0 * y - phase).cos();
            // Twelve uniform numbers less six are as good as normal.
            let normal: f32 = (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
            let level = 110.0 + 40.0 * wave + if inside { 60.0 } else { 0.0 } + 2.0 * normal;
            *value = level.round().clamp(0.0, 255.0) as u8;
        }
    }
    picture
}

fn names(explanation: &Explanation) -> Vec<String> {
    let view = |v: &salientd::heatmap::ViewReport| View { scale: v.scale, hflip: v.hflip };
    explanation.views.iter().map(|v| view(v).to_string()).collect()
}

fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f(f64::from(a) - ma, f64::from(b) - mb)).sum()
    };
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

fn check_weights(explanation: &Explanation) {
    let sum: f32 = explanation.views.iter().map(|v| v.weight).sum();
    assert!((sum - 1.0).abs() < 1e-5, "weights sum to {sum}");
    assert!(explanation.values.iter().all(|x| x.is_finite()));
}

#[test]
fn a_budget_below_one_view_gives_that_view() {
    // Large enough that one view takes more than a millisecond on any machine.
    let side = 512;
    let mut explainer = explainer(side, "[tta.budget]\nbudget_ms = 1");
    explainer.warm_up().unwrap();
    assert!(explainer.exceeded_budget().is_some_and(|least| least.as_millis() >= 1));
    for shot in 0..3 {
        let got = explainer.explain(&shoot(side, 0, shot)).unwrap();
        assert_eq!(names(&got), ["1"]);
        assert_eq!(got.budget_ms, Some(1.0));
        check_weights(&got);
    }
}

#[test]
fn no_multiply_accumulates_left_gives_one_view() {
    let mut explainer = explainer(SIDE, "[tta.budget]\ngmacs_per_s = 0.001");
    explainer.warm_up().unwrap();
    let got = explainer.explain(&shoot(SIDE, 0, 0)).unwrap();
    assert_eq!((names(&got), got.budget_ms), (vec!["1".to_string()], None));
}

#[test]
fn a_generous_budget_changes_nothing() {
    let mut all = explainer(SIDE, "");
    let mut within = explainer(SIDE, "[tta.budget]\nbudget_ms = 600000");
    within.warm_up().unwrap();
    assert_eq!(within.exceeded_budget(), None);
    assert_eq!(
        names(&within.explain(&shoot(SIDE, 0, 0)).unwrap()),
        ["1"],
        "before the others were timed"
    );
    while within.calibrate(&shoot(SIDE, 0, 0)).unwrap() {}
    for shot in 0..3 {
        let picture = shoot(SIDE, shot, shot);
        let (expected, got) = (all.explain(&picture).unwrap(), within.explain(&picture).unwrap());
        assert_eq!(names(&got), names(&expected));
        assert_eq!((expected.budget_ms, got.budget_ms), (None, Some(600_000.0)));
        let worst = off(&got.values, &expected.values);
        assert!(worst < 1e-5, "off by {worst} of the range");
    }
}

/// On a still scene rolling comes to the full map at the price of half a view more than one,
/// and a cut ends it at once.
#[test]
fn rolling_converges_and_heeds_cuts() {
    let mut full = explainer(SIDE, "");
    let mut rolling = explainer(SIDE, "[tta.rolling]\nenabled = true");
    rolling.warm_up().unwrap();
    let (mut cost, mut frames) = (0.0, 0.0);
    for scene in 0..3 {
        for shot in 0..40 {
            let picture = shoot(SIDE, scene, 100 * scene + shot);
            let got = rolling.explain(&picture).unwrap();
            check_weights(&got);
            let fresh = got.views.iter().filter(|v| v.age_ms == 0.0);
            frames += 1.0;
            cost += fresh
                .map(|v| View { scale: v.scale, hflip: v.hflip }.cost(SIDE, SIDE))
                .sum::<f64>();
            assert!(cost <= 1.5 * frames + 1e-9, "{cost} views' cost in {frames} frames");
            if shot == 0 {
                assert!(got.views.iter().all(|v| v.age_ms == 0.0), "kept over a cut: {got:?}");
            }
            if shot >= 35 {
                assert_eq!(got.views.len(), 8);
                let alike = pearson(&got.values, &full.explain(&picture).unwrap().values);
                println!("scene {scene} frame {shot}: Pearson {alike:.5}");
                assert!(alike > 0.995, "frame {shot} of scene {scene}: Pearson {alike}");
            }
        }
    }
    println!("{:.3} views' cost per frame", cost / frames);
    rolling.clear();
    let got = rolling.explain(&shoot(SIDE, 2, 999)).unwrap();
    assert!(got.views.iter().all(|v| v.age_ms == 0.0), "kept over a clear");
}

#[test]
fn heat_takes_views_away_and_gives_them_back() {
    let check = |tta: &str, expected: &[&str]| {
        let mut explainer = explainer(SIDE, tta);
        explainer.warm_up().unwrap();
        let mut explain = |heat: f64, shot| {
            explainer.set_heat(heat);
            let got = explainer.explain(&shoot(SIDE, 0, shot)).unwrap();
            check_weights(&got);
            names(&got)
        };
        assert_eq!(explain(1.0, 0).len(), 8);
        assert_eq!(explain(0.25, 1), expected, "a quarter of all views' cost, {tta}");
        assert_eq!(explain(0.0, 2), ["1"]);
        assert_eq!(explain(1.0, 3).len(), 8);
    };
    check("", &["0.5", "0.5f", "1", "1f"]);
    check("[tta.budget]\norder = [\"1.5f\"]", &["0.5", "0.5f", "1", "1.5f"]);
}

/// The grey picture's best class is in by the thresholds, and would stay so.
#[test]
fn warming_up_chooses_no_class() {
    let grey = Picture { rgb: vec![127; SIDE * SIDE * 3], width: SIDE, height: SIDE };
    let best = |classes: &str, picture: &Picture, warm: bool| {
        let mut explainer = explainer(SIDE, &format!("[classes]\n{classes}"));
        if warm {
            explainer.warm_up().unwrap();
        }
        let class = explainer.explain(picture).unwrap().classes.remove(0);
        (class.index, class.probability)
    };
    let (of_grey, sure) = best("", &grey, false);
    let thresholds = format!("enter = {}\nleave = 0.0", sure * 0.999);
    let mut others = 0;
    for scene in 0..40 {
        let picture = shoot(SIDE, scene, 0);
        let (alone, probability) = best("", &picture, false);
        if alone != of_grey && probability < sure * 0.999 {
            others += 1;
            assert_eq!(best(&thresholds, &picture, true).0, alone, "scene {scene}");
        }
    }
    assert!(others > 0, "no scene of another class");
}

#[test]
fn the_gate_sees_what_has_changed() {
    let mut explainer = explainer(SIDE, "[tta.gate]\nunchanged_levels = 8\nmax_age_s = 3600");
    explainer.warm_up().unwrap();
    let unchanged = |e: &Explainer, scene, shot| e.unchanged(&shoot(SIDE, scene, shot)).is_some();
    assert!(!unchanged(&explainer, 0, 0), "the picture to warm up with does not count");
    explainer.explain(&shoot(SIDE, 0, 0)).unwrap();
    assert!(unchanged(&explainer, 0, 1), "noise is no change");
    assert!(!unchanged(&explainer, 1, 2));
    explainer.clear();
    assert!(!unchanged(&explainer, 0, 3));
}

/// A decision that stays the same may cost less.
#[test]
fn sure_decisions_get_fewer_views() {
    let gate = "sure_margin = 0.0\nsure_frames = 2\nsure_percent = 0";
    let mut explainer = explainer(SIDE, &format!("[tta.gate]\n{gate}"));
    explainer.warm_up().unwrap();
    let counts: Vec<usize> =
        (0..4).map(|shot| explainer.explain(&shoot(SIDE, 0, shot)).unwrap().views.len()).collect();
    assert_eq!(counts, [8, 8, 1, 1]);
}

#[test]
fn rolling_without_the_identity_view_is_refused() {
    let mut config = parse("", "test").unwrap();
    config.tta = TtaConfig { scales: vec![0.5], ..TtaConfig::default() };
    config.tta.rolling.enabled = true;
    config.model.size = Some([SIDE, SIDE]);
    let model = Arc::new(Model::load(&parity("model.onnx"), &config.model).unwrap());
    let error = Explainer::new(model, &config).err().unwrap().to_string();
    assert_eq!(error, "tta.rolling.enabled needs the view at scale 1: add 1.0 to tta.scales");
}

/// What may befall a stream between two frames.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Cut,
    Heat(f64),
    /// Another configuration, or the camera comes back with another size.
    Reload {
        tta: usize,
        side: usize,
    },
    Clear,
    Calibrate,
}

/// Budgets, rolling views, gates, and all of them.
const RELOADS: [&str; 5] = [
    "",
    "[tta.budget]\nbudget_ms = 15",
    "[tta.rolling]\nenabled = true\nmax_age_s = 3600",
    "[tta.budget]\nbudget_ms = 10\ncpu_percent = 80\n[tta.rolling]\nenabled = true\nshare = 2",
    "[tta.budget]\ngmacs_per_s = 0.5\n[tta.rolling]\nenabled = true\n[tta.gate]\nunchanged_levels = 4\n\
     sure_margin = 0.3\nsure_frames = 2\n[classes]\nselect = \"all\"",
];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Nothing),
        2 => Just(Event::Cut),
        1 => (0.0..1.0).prop_map(Event::Heat),
        1 => (0..RELOADS.len(), prop::sample::select(vec![48usize, 64]))
            .prop_map(|(tta, side)| Event::Reload { tta, side }),
        1 => Just(Event::Clear),
        3 => Just(Event::Calibrate),
    ];
    prop::collection::vec(event, 4..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Whatever happens: a map of the size asked for, made of the frame at hand and of
    /// nothing from before a cut, weights that sum to one, and no view started once the
    /// budget was used up.
    #[test]
    fn a_frame_is_sound_whatever_came_before(first in 0..RELOADS.len(), events in events()) {
        let (mut side, mut scene) = (SIDE, 0);
        let mut explainer = explainer(side, RELOADS[first]);
        explainer.warm_up().unwrap();
        let (mut frames_of_scene, mut seen) = (0usize, Vec::new());
        for (shot, event) in events.into_iter().enumerate() {
            match event {
                Event::Nothing => {}
                Event::Cut => (scene, frames_of_scene) = (scene + 1, 0),
                Event::Heat(factor) => explainer.set_heat(factor),
                Event::Reload { tta, side: new } => {
                    (side, frames_of_scene) = (new, 0);
                    explainer = self::explainer(side, RELOADS[tta]);
                    explainer.warm_up().unwrap();
                }
                Event::Clear => {
                    explainer.clear();
                    frames_of_scene = 0;
                }
                Event::Calibrate => {
                    explainer.calibrate(&shoot(side, scene, 0)).unwrap();
                }
            }
            let got = explainer.explain(&shoot(side, scene, shot as u32)).unwrap();
            prop_assert_eq!((got.height, got.width), (side, side));
            prop_assert_eq!(got.values.len(), side * side * got.classes.len());
            prop_assert!(!got.classes.is_empty());
            check_weights(&got);
            let fresh: Vec<_> = got.views.iter().filter(|v| v.age_ms == 0.0).collect();
            prop_assert!(fresh.iter().any(|v| (v.scale, v.hflip) == (1.0, false)));
            // A cut leaves nothing of before, so at most one view a frame since.
            prop_assert!(frames_of_scene > 0 || fresh.len() == got.views.len(), "{:?}", got.views);
            if let Some(budget_ms) = got.budget_ms {
                // All but the last were over when that one was started.
                let last_ms = fresh.iter().map(|v| v.spent_ms).fold(0.0, f64::max);
                let spent_ms: f64 = fresh.iter().map(|v| v.spent_ms).sum();
                prop_assert!(fresh.len() == 1 || spent_ms - last_ms <= budget_ms);
            }
            frames_of_scene += 1;
            seen.push(fresh.len());
        }
        prop_assert!(!seen.is_empty());
    }
}
