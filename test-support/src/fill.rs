//! Parameters with values that are not zero: one factor of a fresh adapter is, and hides what the other does.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

/// Parameters whose values are replaced.
enum Selection {
    /// Parameters that require a gradient.
    Trained,
    /// Parameters of the adapters, by the `.lora.` in their path.
    Adapters,
    /// All parameters.
    All,
}

/// Mapper that gives parameters the values of a sine wave, another one for each parameter.
pub struct Fill {
    selection: Selection,
    more: Vec<String>,
    salt: f32,
    amplitude: f32,
    added: bool,
    with_start: bool,
    path: Vec<String>,
}

impl Fill {
    fn new(selection: Selection) -> Self {
        Self {
            selection,
            more: Vec::new(),
            salt: 0.0,
            amplitude: 0.4,
            added: false,
            with_start: false,
            path: Vec::new(),
        }
    }

    /// Selects the parameters that require a gradient.
    pub fn trained() -> Self {
        Self::new(Selection::Trained)
    }

    /// Selects the parameters of the adapters, without the values that they started at.
    pub fn adapters() -> Self {
        Self::new(Selection::Adapters)
    }

    /// Selects all parameters.
    pub fn all() -> Self {
        Self::new(Selection::All)
    }

    /// Selects the parameters of these paths too.
    pub fn and(mut self, paths: impl IntoIterator<Item = String>) -> Self {
        self.more.extend(paths);
        self
    }

    /// Selects the values that adapters started at too, where these are kept.
    pub fn with_start(mut self) -> Self {
        self.with_start = true;
        self
    }

    /// Sets the phase of the first wave; each parameter's is one more than that of the parameter before.
    pub fn with_salt(mut self, salt: f32) -> Self {
        self.salt = salt;
        self
    }

    /// Sets the largest absolute value.
    pub fn with_amplitude(mut self, amplitude: f32) -> Self {
        self.amplitude = amplitude;
        self
    }

    /// Adds the wave to the values instead of replacing them.
    pub fn added(mut self) -> Self {
        self.added = true;
        self
    }

    /// Maps a module.
    pub fn map<M: Module>(mut self, module: M) -> M {
        module.map(&mut self)
    }

    fn selects(&self, requires_grad: bool) -> bool {
        let path = self.path.join(".");
        let selected = match self.selection {
            Selection::Trained => requires_grad,
            Selection::Adapters => {
                path.contains(".lora.") && (self.with_start || !path.contains(".start."))
            }
            Selection::All => true,
        };
        selected || self.more.contains(&path)
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let requires_grad = param.is_require_grad();
        if !self.selects(requires_grad) {
            return param;
        }
        let (salt, amplitude, added) = (self.salt, self.amplitude, self.added);
        self.salt += 1.0;
        param.map(|old| {
            let wave = |i: usize| (i as f32 * 0.37 + salt).sin() * amplitude;
            let values: Vec<f32> = (0..old.shape().num_elements()).map(wave).collect();
            let wave = Tensor::from_data(TensorData::new(values, old.shape()), &old.device());
            let filled = if added { old.detach() + wave } else { wave };
            if requires_grad {
                filled.require_grad()
            } else {
                filled
            }
        })
    }
}
