//! `passes MODEL HEIGHTxWIDTH PASSES`: loads a model, plans one size and runs so many passes
//! on one thread. tests/arm/count takes the difference of two counts: none and one are
//! loading, one and two a pass.

use salientd::config::ModelConfig;
use salientd::model::{Model, ModelError};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, size, passes] = &arguments[..] else {
        anyhow::bail!("usage: passes MODEL HEIGHTxWIDTH PASSES")
    };
    let passes: u32 = passes.parse()?;
    let (height, width) = size.split_once('x').unwrap_or((size, size));
    let model = Model::load(Path::new(model), &ModelConfig::default())?;
    let plan = model.plan([height.parse()?, width.parse()?])?;
    model.set_row_threads(1);
    for _ in 0..passes {
        // A picture of all bytes, normalised as Xception has it.
        model.run(&plan, |input| -> Result<(), ModelError> {
            for (i, value) in input.iter_mut().enumerate() {
                *value = (i * 7919 % 256) as f32 / 127.5 - 1.0;
            }
            Ok(())
        })?;
    }
    println!("{} {} MAC", model.isa, plan.macs_int8 + plan.macs_float);
    Ok(())
}
