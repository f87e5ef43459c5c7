//! A generator and a critic of two linear layers each, and images as text.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{LeakyRelu, LeakyReluConfig, Linear, LinearConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Distribution, Tensor};
use digits::data::SIDE;

const PIXELS: usize = SIDE * SIDE;
const NOISE: usize = 16;
const HIDDEN: usize = 128;

/// Noise of shape `[images, 16]` to images of shape `[images, 64]`.
#[derive(Module, Debug)]
pub struct Generator {
    hidden: Linear,
    output: Linear,
    activation: LeakyRelu,
}

/// Images of shape `[images, 64]` to scores of shape `[images, 1]`: the higher, the more real.
#[derive(Module, Debug)]
pub struct Critic {
    hidden: Linear,
    output: Linear,
    activation: LeakyRelu,
}

impl Generator {
    pub fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(NOISE, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, PIXELS).init(device),
            activation: LeakyReluConfig::new().init(),
        }
    }

    /// This many images, from noise that is drawn from `device`.
    pub fn generate(&self, images: usize, device: &Device) -> Tensor<2> {
        let noise = Tensor::<2>::random([images, NOISE], Distribution::Normal(0.0, 1.0), device);
        let hidden = self.activation.forward(self.hidden.forward(noise));
        sigmoid(self.output.forward(hidden))
    }
}

impl Critic {
    pub fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(PIXELS, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, 1).init(device),
            activation: LeakyReluConfig::new().init(),
        }
    }

    /// The mean score of the images.
    pub fn score(&self, images: Tensor<2>) -> Tensor<1> {
        let hidden = self.activation.forward(self.hidden.forward(images));
        self.output.forward(hidden).mean()
    }

    /// The same critic, with all weights between `-limit` and `limit`.
    pub fn clipped(self, limit: f32) -> Self {
        self.map(&mut Clip { limit })
    }
}

struct Clip {
    limit: f32,
}

impl ModuleMapper for Clip {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // The optimizer trains leaves of the graph, and a computed tensor is no leaf.
        let clip = |weights: Tensor<D>| {
            let weights = weights.inner().clamp(-self.limit, self.limit);
            Tensor::from_inner(weights).require_grad()
        };
        param.map(clip)
    }
}

/// Images of shape `[images, 64]`, side by side, as lines of text.
///
/// # Errors
///
/// When the device can't be read.
pub fn drawn(images: Tensor<2>) -> anyhow::Result<Vec<String>> {
    const SHADES: [char; 5] = [' ', '.', 'o', 'O', '@'];
    let data = images.try_into_data();
    let data =
        data.map_err(|error| anyhow::anyhow!("cannot read the images from the device: {error:?}"))?;
    let pixels = data.try_to_vec::<f32>();
    let pixels = pixels.map_err(|error| anyhow::anyhow!("the images are no f32: {error:?}"))?;
    let shade = |pixel: &f32| {
        let shade = (pixel * SHADES.len() as f32) as usize;
        SHADES.get(shade).copied().unwrap_or('@')
    };
    let lines = (0..SIDE).map(|row| {
        let rows = pixels
            .chunks(PIXELS)
            .filter_map(|image| image.chunks(SIDE).nth(row));
        let rows: Vec<String> = rows.map(|row| row.iter().map(shade).collect()).collect();
        rows.join("  ").trim_end().to_owned()
    });
    Ok(lines.collect())
}
