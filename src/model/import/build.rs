//! Turns what was found into regions.
//!
//! Operators are grouped by level: the number of float stretches that must run before
//! them. Two operators of one level never wait for each other through float code, so a
//! level is one region.

use super::{Found, Imported, Importer, Kind, Packed, Placed, Read, open};
use crate::int8::elementwise::{Rescale, Term};
use crate::int8::graph::{Layout, Op, Region, TensorInfo, Window};
use crate::int8::{Act, Clamp, Isa, store};
use std::collections::{BTreeMap, HashMap, HashSet};
use tract_onnx::pb::NodeProto;

/// What becomes of the operators that were found.
pub(super) fn build(importer: &Importer, found: Vec<Found>) -> Imported {
    let builder = Builder::new(importer, &found);
    let mut imported = Imported {
        int8: found.iter().map(Found::node).collect(),
        replaced: builder.replaced(),
        ..Imported::default()
    };
    let mut by_level: BTreeMap<usize, Vec<Found>> = BTreeMap::new();
    for f in found {
        by_level.entry(builder.levels[&*f.output]).or_default().push(f);
    }
    for (level, members) in by_level {
        let placed = builder.region(level, members, &mut imported.added);
        imported.regions.push(placed);
    }
    imported
}

struct Builder<'i, 'g> {
    importer: &'i Importer<'g>,
    /// Tensors that the operators make.
    made: HashSet<String>,
    /// Nodes that the operators replace.
    inside: HashSet<usize>,
    /// By tensor: the levels of the operators that read it.
    readers: HashMap<String, HashSet<usize>>,
    /// The level of every tensor.
    levels: HashMap<&'g str, usize>,
}

impl<'i, 'g> Builder<'i, 'g> {
    fn new(importer: &'i Importer<'g>, found: &[Found]) -> Self {
        let mut builder = Self {
            importer,
            made: found.iter().map(|f| f.output.clone()).collect(),
            inside: found.iter().flat_map(|f| f.nodes.iter().copied()).collect(),
            readers: HashMap::new(),
            levels: HashMap::new(),
        };
        builder.find_levels();
        for f in found {
            for read in &f.inputs {
                let level = builder.levels[&*f.output];
                builder.readers.entry(read.tensor.clone()).or_default().insert(level);
            }
        }
        builder
    }

    fn find_levels(&mut self) {
        let graph = self.importer.graph;
        for (i, node) in graph.proto.node.iter().enumerate() {
            let level = |t: &String| self.levels.get(&**t).copied().unwrap_or(0);
            let most = node.input.iter().map(level).max().unwrap_or(0);
            let reads_ours = |t: &String| {
                let dq = graph.producer(t).filter(|p| p.op_type == "DequantizeLinear");
                self.made.contains(dq.map_or(t, |dq| &dq.input[0]))
            };
            // Between an operator and its QuantizeLinear the nodes belong to the operator.
            let float_after = !self.inside.contains(&i)
                && node.op_type != "DequantizeLinear"
                && node.input.iter().any(reads_ours);
            for o in &node.output {
                self.levels.insert(o, most + float_after as usize);
            }
        }
    }

    fn replaced(&self) -> HashSet<String> {
        let nodes = self.inside.iter().map(|&n| &self.importer.graph.proto.node[n]);
        let outputs = nodes.flat_map(|node| &node.output);
        outputs.filter(|name| !name.is_empty()).cloned().collect()
    }

    fn region(&self, level: usize, members: Vec<Found>, added: &mut Vec<NodeProto>) -> Placed {
        let mut r = RegionBuilder::new(self.importer.isa);
        let mut outputs = Vec::new();
        for found in members {
            for Read { tensor, .. } in &found.inputs {
                if !r.ids.contains_key(tensor) {
                    r.quantize(self.own(tensor), self.real_before(tensor));
                }
            }
            outputs.push(found.output.clone());
            r.operator(found);
        }
        for output in outputs {
            self.outputs(&mut r, &output, level, added);
        }
        r.finish()
    }

    /// A tensor as it was made.
    fn own(&self, tensor: &str) -> Read {
        Read { tensor: tensor.to_string(), quant: self.importer.codes[tensor].quant }
    }

    /// The float tensors that a region makes of one of its own.
    fn outputs(
        &self,
        r: &mut RegionBuilder,
        output: &str,
        level: usize,
        added: &mut Vec<NodeProto>,
    ) {
        let graph = self.importer.graph;
        let mut as_integers = graph.is_output(output);
        for &c in graph.consumers(output) {
            let node = &graph.proto.node[c];
            match self.dequantized(node, output) {
                Some(read) if self.read_in_float(&node.output[0]) => {
                    r.dequantize(&read, node.output[0].clone());
                }
                Some(_) => {}
                None => as_integers |= !self.inside.contains(&c),
            }
        }
        let crosses = self.readers.get(output).is_some_and(|at| at.iter().any(|&l| l != level));
        if crosses || as_integers {
            r.dequantize(&self.own(output), self.real_of(output));
        }
        if as_integers {
            added.extend(self.quantized_anew(output));
        }
    }

    /// What a DequantizeLinear reads, if it is one that a region can replace.
    fn dequantized(&self, node: &NodeProto, tensor: &str) -> Option<Read> {
        let is_one = node.op_type == "DequantizeLinear" && node.input[0] == tensor;
        is_one.then(|| self.importer.read(node, 0).ok()).flatten()
    }

    /// Whether a float tensor that a DequantizeLinear makes is read outside of operators.
    fn read_in_float(&self, tensor: &str) -> bool {
        let graph = self.importer.graph;
        graph.is_output(tensor) || graph.consumers(tensor).iter().any(|c| !self.inside.contains(c))
    }

    /// The float tensor of which a region makes a quantized one.
    fn real_before(&self, tensor: &str) -> String {
        let producer = self.importer.graph.producer(tensor);
        match producer.filter(|p| p.op_type == "QuantizeLinear") {
            Some(q) if !self.made.contains(tensor) => q.input[0].clone(),
            // Made by another region: it comes over in float.
            _ => self.real_of(tensor),
        }
    }

    /// The float tensor by which a quantized one leaves its region unchanged: the file's, if
    /// there is one.
    fn real_of(&self, tensor: &str) -> String {
        let (graph, own) = (self.importer.graph, self.own(tensor));
        let readers = graph.consumers(tensor).iter().map(|&c| &graph.proto.node[c]);
        let mut dequantize = readers.filter(|n| self.dequantized(n, tensor).as_ref() == Some(&own));
        dequantize.next().map_or_else(|| format!("{tensor}/real"), |n| n.output[0].clone())
    }

    /// Makes a tensor's integers for who reads them outside of regions.
    fn quantized_anew(&self, tensor: &str) -> Option<NodeProto> {
        let code = self.importer.graph.code_of(tensor)?;
        let input = std::iter::once(&self.real_of(tensor)).chain(code).cloned().collect();
        let output = vec![tensor.to_string()];
        Some(NodeProto { op_type: "QuantizeLinear".into(), input, output, ..Default::default() })
    }
}

struct RegionBuilder {
    isa: Isa,
    ids: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    ops: Vec<Op>,
    inputs: Vec<String>,
    outputs: Vec<(String, usize)>,
}

impl RegionBuilder {
    fn new(isa: Isa) -> Self {
        Self {
            isa,
            ids: HashMap::new(),
            tensors: Vec::new(),
            ops: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn tensor(&mut self, as_read: &Read) -> usize {
        let (name, quant) = (as_read.tensor.clone(), as_read.quant);
        self.tensors.push(TensorInfo { name, quant });
        self.tensors.len() - 1
    }

    /// A tensor that is there, with the scale and zero point of its reader.
    fn read(&mut self, read: &Read) -> usize {
        let x = self.ids[&read.tensor];
        if self.tensors[x].quant == read.quant {
            return x;
        }
        // The same bytes mean something else.
        let out = self.tensor(read);
        self.ops.push(Op::Clip { x, out, low: store(0), high: store(255) });
        out
    }

    fn quantize(&mut self, tensor: Read, from: String) {
        let out = self.tensor(&tensor);
        self.ids.insert(tensor.tensor, out);
        self.ops.push(Op::Quantize { input: self.inputs.len(), out });
        self.inputs.push(from);
    }

    fn dequantize(&mut self, read: &Read, to: String) {
        if self.outputs.iter().any(|(name, _)| *name == to) {
            return;
        }
        let x = self.read(read);
        self.ops.push(Op::Dequantize { x, output: self.outputs.len() });
        self.outputs.push((to, x));
    }

    fn operator(&mut self, found: Found) {
        let reads: Vec<usize> = found.inputs.iter().map(|read| self.read(read)).collect();
        let (x, clamp) = (reads[0], found.clamp);
        let quant = found.code.quant;
        let out = self.tensor(&Read { tensor: found.output.clone(), quant });
        self.ids.insert(found.output, out);
        let op = match found.kind {
            Kind::Conv { weights: Packed::Depthwise(weights), window, .. } => {
                Op::Depthwise { x, rescale: None, out, window, weights }
            }
            Kind::Conv { weights: Packed::Gemm(groups), window, .. } => {
                Op::Conv { x, out, window, groups }
            }
            Kind::Add => {
                let b = reads[1];
                let term = |t: usize| Term::new(self.tensors[t].quant, quant.scale);
                Op::Add { a: x, b, out, terms: [term(x), term(b)], clamp }
            }
            Kind::Rescale => self.rescale(x, out, clamp),
            Kind::MaxPool(window) => {
                return self.unscaled(x, out, clamp, |x, out| Op::MaxPool { x, out, window });
            }
            Kind::Pad(pads) => {
                return self.unscaled(x, out, clamp, |x, out| Op::Pad { x, out, pads });
            }
        };
        self.ops.push(op);
    }

    /// From one scale and zero point into another, through a ReLU or Clip.
    fn rescale(&self, x: usize, out: usize, clamp: Clamp) -> Op {
        let (from, to) = (self.tensors[x].quant, self.tensors[out].quant);
        if from == to {
            return Op::Clip { x, out, low: clamp.low as Act, high: clamp.high as Act };
        }
        Op::Rescale { x, out, by: Rescale { term: Term::new(from, to.scale), clamp } }
    }

    /// An operator that keeps scale and zero point. Where the file changes them, or has a ReLU
    /// or Clip behind it, that follows.
    fn unscaled(&mut self, x: usize, out: usize, clamp: Clamp, op: impl Fn(usize, usize) -> Op) {
        let (from, to) = (self.tensors[x].quant, self.tensors[out].quant);
        if from == to && clamp == open(to) {
            return self.ops.push(op(x, out));
        }
        let between = TensorInfo { quant: from, ..self.tensors[out].clone() };
        self.tensors.push(between);
        let between = self.tensors.len() - 1;
        self.ops.push(op(x, between));
        self.ops.push(self.rescale(between, out, clamp));
    }

    fn finish(self) -> Placed {
        let ops = fuse(self.ops, &self.outputs);
        let region = Region {
            isa: self.isa,
            tensors: self.tensors,
            ops,
            inputs: vec![Layout::Nchw; self.inputs.len()],
            outputs: self.outputs.iter().map(|&(_, t)| (Layout::Nchw, t)).collect(),
        };
        let outputs = self.outputs.into_iter().map(|(name, _)| name).collect();
        Placed { region, inputs: self.inputs, outputs }
    }
}

/// Puts together what need not pass through memory: depthwise followed by pointwise, and
/// by nothing else, becomes separable; a change of scale before a depthwise convolution, and
/// before nothing else, is done on its way there.
fn fuse(ops: Vec<Op>, outputs: &[(String, usize)]) -> Vec<Op> {
    let mut readers: HashMap<usize, usize> = HashMap::new();
    for t in ops.iter().flat_map(Op::reads).chain(outputs.iter().map(|o| o.1)) {
        *readers.entry(t).or_default() += 1;
    }
    // Operators whose output waits for its one reader.
    let mut rescaled: HashMap<usize, (usize, Rescale)> = HashMap::new();
    let mut pending = HashMap::new();
    let goes_into = |kind: fn(&Op) -> bool| -> HashSet<usize> {
        let readers = &readers;
        ops.iter().filter(|op| kind(op)).flat_map(Op::reads).filter(|x| readers[x] == 1).collect()
    };
    let feeds_depthwise = goes_into(|op| matches!(op, Op::Depthwise { .. }));
    let feeds_point = goes_into(|op| match op {
        Op::Conv { window, groups, .. } => *window == Window::POINT && groups.len() == 1,
        _ => false,
    });
    let mut fused = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            Op::Rescale { x, out, by } if feeds_depthwise.contains(&out) => {
                rescaled.insert(out, (x, by));
            }
            Op::Depthwise { x, out, window, weights, .. } => {
                let (x, rescale) = match rescaled.remove(&x) {
                    Some((x, by)) => (x, Some(by)),
                    None => (x, None),
                };
                if feeds_point.contains(&out) {
                    pending.insert(out, (x, rescale, window, weights));
                } else {
                    fused.push(Op::Depthwise { x, rescale, out, window, weights });
                }
            }
            Op::Conv { x, out, window: _, mut groups } if pending.contains_key(&x) => {
                let (x, rescale, window, depthwise) = pending.remove(&x).expect("just seen");
                let pointwise = groups.remove(0);
                fused.push(Op::Separable { x, rescale, out, window, depthwise, pointwise });
            }
            other => fused.push(other),
        }
    }
    fused
}
