//! Figures as SVG, written by this crate: heat maps are rectangles and curves are lines, and inside a page both take their
//! colours from it, which plotting crates do not offer.
//!
//! | file | contents |
//! | --- | --- |
//! | `heat_map` | heat maps side by side, with one scale from 0 to 1 |
//! | `chart` | curves over steps |
//! | `scale` | ticks and colours |

mod chart;
mod heat_map;
mod scale;

pub(super) use chart::{COLOURS, Chart, Series};
pub(super) use heat_map::{HeatMap, heat_maps};
