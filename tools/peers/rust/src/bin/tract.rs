//! tract as it is, one plan for each input size.

use salientd_peers::{Arguments, serve};
use tract_onnx::prelude::*;

fn main() -> TractResult<()> {
    let arguments = Arguments::read();
    // More threads are a feature of tract's that few builds have, and only for products.
    assert_eq!(arguments.threads, 1, "one thread");
    let plans = arguments.sides().map(|side| {
        let shape = [1, 3, side, side];
        let plan = tract_onnx::onnx()
            .model_for_path(&arguments.model)?
            .with_input_fact(0, f32::fact(shape).into())?
            .into_optimized()?
            .into_runnable()?;
        TractResult::Ok((plan, Tensor::zero::<f32>(&shape)?))
    });
    let plans: Vec<_> = plans.into_iter().collect::<TractResult<_>>()?;
    serve(|at| {
        let (plan, input) = &plans[at];
        plan.run(tvec!(input.clone().into())).expect("tract runs");
    });
    Ok(())
}
