//! A quantized region as an operator inside tract's graph.

use crate::int8::graph::{Layout, Region};
use crate::int8::plan::Plan;
use crate::int8::run::{self, Workspace};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

/// ONNX operator type of the nodes that stand for regions.
pub const OP_TYPE: &str = "SalientdInt8";

/// What all regions and plans of a model share: memory for passes, and how to run one.
#[derive(Debug, Default)]
pub struct Shared {
    /// Workspaces not in use; as many as passes have run at the same time.
    workspaces: Mutex<Vec<Workspace>>,
    /// Features not in use, the latest used last.
    features: Mutex<Vec<Tensor>>,
    /// The largest input not in use. The others together are as large, and a board has little
    /// memory.
    input: Mutex<Option<Tensor>>,
    /// Set to abandon running passes between two operators.
    pub cancel: AtomicBool,
    /// Threads that one pass spreads its rows over.
    pub row_threads: AtomicUsize,
}

impl Shared {
    fn take(&self) -> Workspace {
        self.workspaces.lock().unwrap_or_else(|e| e.into_inner()).pop().unwrap_or_default()
    }

    fn give(&self, workspace: Workspace) {
        self.workspaces.lock().unwrap_or_else(|e| e.into_inner()).push(workspace);
    }

    /// Drops what is kept and not in use.
    pub fn forget(&self) {
        self.workspaces.lock().unwrap_or_else(|e| e.into_inner()).clear();
        self.features.lock().unwrap_or_else(|e| e.into_inner()).clear();
        *self.input.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }

    /// Memory for features; full of what was in it before.
    pub fn take_features(&self, shape: &[usize]) -> TractResult<Tensor> {
        let mut kept = self.features.lock().unwrap_or_else(|e| e.into_inner());
        match kept.iter().rposition(|t| t.shape() == shape) {
            Some(at) => Ok(kept.remove(at)),
            None => Tensor::zero::<f32>(shape),
        }
    }

    /// For a later [`take_features`](Self::take_features) of this shape.
    pub fn give_features(&self, tensor: Tensor) {
        /// Those of a rich set of views.
        const MOST: usize = 32;

        let mut kept = self.features.lock().unwrap_or_else(|e| e.into_inner());
        if kept.len() == MOST {
            kept.remove(0);
        }
        kept.push(tensor);
    }

    /// Memory for an input; full of what was in it before.
    pub fn take_input(&self, shape: &[usize]) -> TractResult<Tensor> {
        let mut kept = self.input.lock().unwrap_or_else(|e| e.into_inner());
        match kept.take_if(|t| t.shape() == shape) {
            Some(tensor) => Ok(tensor),
            None => Tensor::zero::<f32>(shape),
        }
    }

    /// For a later [`take_input`](Self::take_input) of this shape.
    pub fn give_input(&self, tensor: Tensor) {
        let mut kept = self.input.lock().unwrap_or_else(|e| e.into_inner());
        if kept.as_ref().is_none_or(|kept| kept.len() <= tensor.len()) {
            *kept = Some(tensor);
        }
    }
}

/// A region on its way into tract.
#[derive(Clone, Debug)]
pub struct RegionOp {
    pub region: Arc<Region>,
    pub shared: Arc<Shared>,
}

thread_local! {
    /// tract builds operators by plain function pointers, which can capture nothing: the
    /// regions of the graph being parsed wait here.
    static PARSING: RefCell<Vec<RegionOp>> = const { RefCell::new(Vec::new()) };
}

/// Runs `parse` with `regions` at hand for nodes of type [`OP_TYPE`].
pub fn with_regions<T>(regions: Vec<RegionOp>, parse: impl FnOnce() -> T) -> T {
    PARSING.with(|p| *p.borrow_mut() = regions);
    let result = parse();
    PARSING.with(|p| p.borrow_mut().clear());
    result
}

/// tract's builder for [`OP_TYPE`].
pub fn build(
    _: &tract_onnx::model::ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let index = super::onnx::int(node, "region").unwrap_or(-1);
    let op = PARSING.with(|p| p.borrow().get(index as usize).cloned());
    let op = op.with_context(|| format!("no region {index}"))?;
    Ok((expand(op), vec![]))
}

impl Expansion for RegionOp {
    fn name(&self) -> StaticName {
        OP_TYPE.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.region.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        for input in inputs {
            s.equals(&input.datum_type, f32::datum_type())?;
            s.equals(&input.rank, 4)?;
        }
        for output in outputs {
            s.equals(&output.datum_type, f32::datum_type())?;
        }
        s.given_all(
            inputs.iter().map(|i| &i.shape),
            move |s: &mut Solver, shapes: Vec<TVec<TDim>>| {
                let concrete: Option<Vec<TVec<usize>>> =
                    shapes.iter().map(|s| s.iter().map(|d| d.to_usize().ok()).collect()).collect();
                let Some(shapes) = concrete else { return Ok(()) };
                let plan = self.plan(shapes.iter().map(|s| &**s))?;
                for (output, shape) in outputs.iter().zip(self.shapes(&plan)) {
                    s.equals(
                        &output.shape,
                        shape.iter().map(|d| d.to_dim()).collect::<TVec<TDim>>(),
                    )?;
                }
                Ok(())
            },
        )
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shapes = inputs
            .iter()
            .map(|&i| {
                let fact = model.outlet_fact(i)?;
                fact.shape.as_concrete().map(|s| s.to_vec()).context("the input size is not fixed")
            })
            .collect::<TractResult<Vec<_>>>()?;
        let plan = self.plan(shapes.iter().map(|s| &**s))?;
        let op = PlannedOp { of: self.clone(), plan: Arc::new(plan) };
        model.wire_node(prefix, op, inputs)
    }
}

impl RegionOp {
    /// Plans for input shapes of rank 4 and batch 1.
    pub fn plan<'s>(&self, shapes: impl Iterator<Item = &'s [usize]>) -> TractResult<Plan> {
        let mut sizes = Vec::new();
        for (shape, layout) in shapes.zip(&self.region.inputs) {
            let &[1, a, b, c] = shape else { bail!("batch 1 and rank 4 expected, not {shape:?}") };
            sizes.push(match layout {
                Layout::Nchw => [b, c, a],
                Layout::Nhwc => [a, b, c],
            });
        }
        Ok(Plan::new(&self.region, &sizes)?)
    }

    fn shapes<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = [usize; 4]> + 'a {
        self.region.outputs.iter().map(|&(layout, tensor)| {
            let [h, w, c] = plan.sizes[tensor];
            match layout {
                Layout::Nchw => [1, c, h, w],
                Layout::Nhwc => [1, h, w, c],
            }
        })
    }
}

/// A region at one input size: what tract runs.
#[derive(Clone, Debug)]
pub struct PlannedOp {
    pub of: RegionOp,
    pub plan: Arc<Plan>,
}

impl PartialEq for PlannedOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.of.region, &other.of.region) && self.plan == other.plan
    }
}
impl Eq for PlannedOp {}

impl Op for PlannedOp {
    fn name(&self) -> StaticName {
        OP_TYPE.into()
    }
    op_as_typed_op!();
}

impl EvalOp for PlannedOp {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let plain: Vec<_> =
            inputs.iter().map(|i| i.try_as_plain_ram()).collect::<TractResult<_>>()?;
        let slices =
            plain.iter().map(|i| i.as_slice::<f32>()).collect::<TractResult<Vec<&[f32]>>>()?;
        let mut results = self
            .of
            .shapes(&self.plan)
            .map(|shape| self.of.shared.take_features(&shape))
            .collect::<TractResult<Vec<Tensor>>>()?;
        let mut plain = results
            .iter_mut()
            .map(|r| r.try_as_plain_ram_mut())
            .collect::<TractResult<Vec<_>>>()?;
        let mut outputs =
            plain.iter_mut().map(|p| p.as_slice_mut::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let shared = &self.of.shared;
        let threads = shared.row_threads.load(Ordering::Relaxed).max(1);
        let mut workspace = shared.take();
        let ran = run::run(
            &self.of.region,
            &self.plan,
            &mut workspace,
            &slices,
            &mut outputs,
            threads,
            &shared.cancel,
        );
        shared.give(workspace);
        ran?;
        Ok(results.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for PlannedOp {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.of.shapes(&self.plan).map(f32::fact).collect())
    }

    fn cost(&self, _: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        Ok(tvec!((Cost::FMA(i8::datum_type()), (self.plan.macs as usize).to_dim())))
    }
    as_op!();
}
