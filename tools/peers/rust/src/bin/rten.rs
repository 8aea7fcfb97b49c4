//! rten, one model for all input sizes.

use rten::{Model, RunOptions, ThreadPool, Value};
use salientd_peers::{Arguments, serve};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::read();
    let model = Model::load_file(&arguments.model)?;
    let pool = Arc::new(ThreadPool::with_num_threads(arguments.threads));
    let options = RunOptions::default().with_thread_pool(Some(pool));
    let input = model.input_ids()[0];
    let outputs = model.output_ids().to_vec();
    let pictures = arguments.sides().map(|side| {
        let zeros = vec![0f32; 3 * side * side];
        Value::from_shape(&[1, 3, side, side], zeros).expect("as many as the shape says")
    });
    serve(|at| {
        let inputs = vec![(input, pictures[at].as_view().into())];
        model.run(inputs, &outputs, Some(options.clone())).expect("rten runs");
    });
    Ok(())
}
