//! What a model file says about itself: labels, input scaling, colour order, native size.
//! ONNX metadata where present, the configuration where not, or where it overrides.

use super::ModelError;
use crate::config::{ColourOrder, ModelConfig, Scaling};
use tract_onnx::pb::ModelProto;

/// How pixels become the model's input: per channel `(x − mean) / std`, `x` in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub order: ColourOrder,
}

impl Scaling {
    /// Mean and standard deviation of the preset, in the model's channel order.
    pub fn mean_std(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Scaling::Keras => ([127.5; 3], [127.5; 3]),
            // torchvision's ImageNet statistics, times 255
            Scaling::Torch => ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
            Scaling::Unit => ([0.0; 3], [255.0; 3]),
            Scaling::Lite => ([127.0; 3], [128.0; 3]),
            Scaling::Raw => ([0.0; 3], [1.0; 3]),
        }
    }
}

/// The value of a metadata key.
pub fn get<'m>(model: &'m ModelProto, key: &str) -> Option<&'m str> {
    model.metadata_props.iter().find(|p| p.key == key).map(|p| p.value.as_str())
}

fn wrong(key: &str, value: &str, expected: &str) -> ModelError {
    ModelError::Bad(format!("metadata `{key}` is \"{value}\", expected {expected}"))
}

pub fn normalisation(
    model: &ModelProto,
    config: &ModelConfig,
) -> Result<Normalisation, ModelError> {
    let scaling = match (config.scaling, get(model, "scaling")) {
        (Some(s), _) => s,
        (None, Some("keras")) | (None, None) => Scaling::Keras,
        (None, Some("torch")) => Scaling::Torch,
        (None, Some("unit")) => Scaling::Unit,
        (None, Some("lite")) => Scaling::Lite,
        (None, Some("raw")) => Scaling::Raw,
        (None, Some(other)) => {
            return Err(wrong("scaling", other, "keras, torch, unit, lite or raw"));
        }
    };
    let (mean, std) = scaling.mean_std();
    let order = match (config.colour, get(model, "colour")) {
        (Some(c), _) => c,
        (None, Some("rgb")) | (None, None) => ColourOrder::Rgb,
        (None, Some("bgr")) => ColourOrder::Bgr,
        (None, Some(other)) => return Err(wrong("colour", other, "rgb or bgr")),
    };
    Ok(Normalisation { mean: config.mean.unwrap_or(mean), std: config.std.unwrap_or(std), order })
}

/// `[h, w]` from metadata `native_size` ("299x299").
pub fn native_size(model: &ModelProto) -> Result<Option<[usize; 2]>, ModelError> {
    let Some(text) = get(model, "native_size") else { return Ok(None) };
    let size = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    match size {
        Some([h, w]) if (1..=8192).contains(&h) && (1..=8192).contains(&w) => Ok(Some([h, w])),
        _ => Err(wrong("native_size", text, "HEIGHTxWIDTH")),
    }
}

/// One label per class: from the configured file, else metadata `labels` (one a line),
/// else the class's index.
pub fn labels(
    model: &ModelProto,
    config: &ModelConfig,
    classes: usize,
) -> Result<Vec<String>, ModelError> {
    let (text, from) = match (&config.labels, get(model, "labels")) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| ModelError::Labels(format!("{}: {e}", path.display())))?;
            (text, path.display().to_string())
        }
        (None, Some(text)) => (text.to_string(), "metadata `labels`".to_string()),
        (None, None) => return Ok((0..classes).map(|c| c.to_string()).collect()),
    };
    let labels: Vec<String> = text.trim_end().lines().map(|l| l.trim().to_string()).collect();
    if labels.len() != classes {
        return Err(ModelError::Labels(format!(
            "{from}: {} labels, and the model has {classes} classes",
            labels.len()
        )));
    }
    Ok(labels)
}
