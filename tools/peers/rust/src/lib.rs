//! What the engines share: the protocol of ../protocol.py, and the eight views' sizes.

use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

const SCALES: [f32; 4] = [1.0, 0.5, 1.5, 2.0];

/// `NAME MODEL.onnx SIDE THREADS`
pub struct Arguments {
    pub model: String,
    pub side: usize,
    pub threads: usize,
}

impl Arguments {
    pub fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [model, side, threads] = words.try_into().expect("MODEL.onnx SIDE THREADS");
        let number = |text: String| text.parse().expect("a number");
        Self { model, side: number(side), threads: number(threads) }
    }

    /// Of the four scales; each is run twice for a frame, as a flipped view costs the same.
    pub fn sides(&self) -> [usize; 4] {
        SCALES.map(|scale| (scale * self.side as f32) as usize)
    }
}

/// Runs both tasks once, says so, and answers each line `view` or `frame` with the
/// milliseconds that it took. `pass` runs the network at the side with this index, on an
/// input that is ready: the engine is spared the resizing and the maps that the others do.
pub fn serve(pass: impl Fn(usize)) {
    let frame = || (0..SCALES.len()).for_each(|at| (0..2).for_each(|_| pass(at)));
    frame();
    println!("ready");
    for task in stdin().lock().lines().map_while(Result::ok) {
        let start = Instant::now();
        match task.as_str() {
            "view" => pass(0),
            _ => frame(),
        }
        println!("{:.4}", start.elapsed().as_secs_f64() * 1e3);
        let _ = stdout().flush();
    }
}
