//! What a pass at one size takes, told from tract's graph before tract makes it ready.

use super::{limits, op};
use std::collections::HashMap;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cnn::{Conv, MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_onnx::tract_hir::internal::{Cost, DimLike};

/// See the fields of these names of [`super::Plan`].
#[derive(Debug, Default)]
pub struct Costs {
    pub macs_int8: u64,
    pub macs_float: u64,
    pub arena_bytes: usize,
    pub float_bytes: usize,
}

impl Costs {
    /// Of a graph whose shapes are known; an error where they are beyond the limits.
    pub fn of(model: &TypedModel) -> Result<Costs, String> {
        let mut costs = Costs { float_bytes: live_bytes(model), ..Costs::default() };
        let (mut touched, mut offsets) = (0u64, 0u64);
        for node in model.nodes() {
            if let Some(op) = node.op_as::<op::PlannedOp>() {
                costs.macs_int8 = costs.macs_int8.saturating_add(op.plan.macs);
                costs.arena_bytes = costs.arena_bytes.max(op.plan.arena_len);
                touched = touched.saturating_add(op.plan.touched);
            } else if let Ok(inputs) = model.node_input_facts(node.id) {
                costs.macs_float = costs.macs_float.saturating_add(multiplications(node, &inputs));
                touched = touched.saturating_add(values_touched(node, &inputs));
                offsets = offsets.saturating_add(window_offsets(node));
            }
        }
        let work = costs.macs_int8.saturating_add(costs.macs_float).saturating_add(touched);
        for (n, what, most) in [
            (costs.float_bytes as u64, "bytes of float tensors", limits::MOST_LIVE_BYTES as u64),
            (work, "multiply-accumulates and values to look at a pass", limits::MOST_WORK),
            (offsets, "places of windows' taps", limits::MOST_OFFSETS),
        ] {
            if n > most {
                return Err(format!("{n} {what}, the limit is {most}"));
            }
        }
        Ok(costs)
    }
}

fn multiplications(node: &TypedNode, inputs: &[&TypedFact]) -> u64 {
    let costs = node.op.cost(inputs).unwrap_or_default();
    let fma = costs.iter().filter(|(c, _)| matches!(c, Cost::FMA(_)));
    fma.filter_map(|(_, n)| n.to_usize().ok()).fold(0, |sum, n| sum.saturating_add(n as u64))
}

fn pool(node: &TypedNode) -> Option<&PoolSpec> {
    let largest = node.op_as::<MaxPool>().map(|p| &p.pool_spec);
    largest.or_else(|| node.op_as::<SumPool>().map(|p| &p.pool_spec))
}

fn len(fact: &TypedFact) -> u64 {
    fact.shape.as_concrete().map_or(0, limits::values)
}

/// Values that a node reads and writes; a pool writes each as often as its window has taps.
fn values_touched(node: &TypedNode, inputs: &[&TypedFact]) -> u64 {
    let taps = pool(node).map_or(1, |spec| limits::values(&spec.kernel_shape));
    let written = node.outputs.iter().map(|out| len(&out.fact).saturating_mul(taps));
    inputs.iter().map(|fact| len(fact)).chain(written).fold(0, u64::saturating_add)
}

/// tract keeps the place of each tap of a window: once for the middle of a picture, and, where
/// there is padding, for each way in which a window can hang over the borders.
fn window_offsets(node: &TypedNode) -> u64 {
    let convolution = || node.op_as::<Conv>().map(|c| &c.pool_spec);
    let Some(spec) = pool(node).or_else(convolution) else { return 0 };
    let taps = limits::values(&spec.kernel_shape);
    let hangs_over = match &spec.padding {
        PaddingSpec::Valid => false,
        PaddingSpec::Explicit(before, after)
        | PaddingSpec::ExplicitOnnxPool(before, after, false) => {
            before.iter().chain(after).any(|&pad| pad > 0)
        }
        _ => true,
    };
    let positions = node.outputs.iter().map(|out| len(&out.fact)).max().unwrap_or(0);
    let ways = if hangs_over { taps.min(positions) } else { 1 };
    taps.saturating_mul(2 + ways)
}

/// Bytes of the tensors that are alive at the same time, at most, when the nodes run in
/// order and each tensor goes with its last reader. Constants are not counted.
fn live_bytes(model: &TypedModel) -> usize {
    let Ok(order) = model.eval_order() else { return 0 };
    let bytes = |outlet: OutletId| {
        let fact = model.outlet_fact(outlet).ok().filter(|f| f.konst.is_none());
        fact.and_then(|f| {
            let len = f.shape.as_concrete().map(limits::values)?;
            Some(len.saturating_mul(f.datum_type.size_of() as u64).min(super::MOST_BYTES * 8))
        })
    };
    let place: HashMap<usize, usize> = order.iter().enumerate().map(|(i, &n)| (n, i)).collect();
    let mut change = vec![0i64; order.len() + 2];
    for &id in &order {
        let node = model.node(id);
        for (slot, outlet) in node.outputs.iter().enumerate() {
            let last = outlet.successors.iter().filter_map(|s| place.get(&s.node)).max();
            let last = last.copied().unwrap_or(order.len());
            let size = bytes(OutletId::new(id, slot)).unwrap_or(0) as i64;
            change[place[&id]] += size;
            change[last + 1] -= size;
        }
    }
    let live = change.iter().scan(0, |live, c| {
        *live += c;
        Some(*live)
    });
    live.max().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
}
