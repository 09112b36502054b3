//! Curves over steps, for a page whose styles colour them.

use super::scale::ticks;
use crate::tools::markup::Text;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;
/// Number of points above which a curve is drawn by the means of its neighbours.
const MOST: usize = 600;
/// Number of points up to which each is marked.
const MARKED: usize = 40;
/// Number of colours of the page.
pub(in crate::tools) const COLOURS: usize = 8;

/// Curve.
#[derive(Clone, Debug, Default)]
pub(in crate::tools) struct Series {
    /// Name.
    pub name: String,
    /// Position in the list of runs, which gives the colour.
    pub colour: usize,
    /// Steps and values, in the order of the steps.
    pub points: Vec<(f64, f64)>,
}

/// Chart of curves.
pub(in crate::tools) struct Chart<'a> {
    /// Description for readers that do not see it.
    pub title: &'a str,
    /// Curves.
    pub series: &'a [Series],
}

impl Chart<'_> {
    /// Returns the chart as an SVG element, or a note if there is nothing to draw.
    pub fn svg(&self) -> String {
        let finite = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            let points = points.iter().copied();
            points
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .collect()
        };
        let curves: Vec<Vec<(f64, f64)>> = self.series.iter().map(|s| finite(&s.points)).collect();
        let all = || curves.iter().flatten();
        let Some(x) = range(all().map(|(x, _)| *x), 0.0) else {
            return "<p class=\"none\">no finite values</p>".into();
        };
        let y = range(all().map(|(_, y)| *y), 0.05).unwrap_or([0.0, 1.0]);
        let plot = Plot { x, y };
        let title = Text(self.title);
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
        );
        plot.add_axes(&mut svg);
        for (series, points) in self.series.iter().zip(&curves) {
            plot.add_curve(&mut svg, series, points);
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Returns the least and the greatest value, with this share of their distance around them; `None` without a value.
fn range(values: impl Iterator<Item = f64>, around: f64) -> Option<[f64; 2]> {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (least, most) = (least.min(value), most.max(value));
    }
    if least > most {
        return None;
    }
    let room = match most - least {
        0.0 => least.abs().max(1.0) * 0.1,
        distance => distance * around,
    };
    Some([least - room, most + room])
}

/// Ranges of the axes.
struct Plot {
    x: [f64; 2],
    y: [f64; 2],
}

impl Plot {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |value: f64, [least, most]: [f64; 2]| (value - least) / (most - least);
        (
            LEFT + share(x, self.x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - share(y, self.y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    fn add_axes(&self, svg: &mut String) {
        let (values, decimals) = ticks(self.y, 5);
        for value in values {
            let (_, y) = self.at((self.x[0], value));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.decimals$}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let (values, decimals) = ticks(self.x, 6);
        for value in values {
            let (x, _) = self.at((value, self.y[0]));
            let _ = write!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value:.decimals$}</text>",
                HEIGHT - BOTTOM + 17.0
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">step</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0
        );
    }

    fn add_curve(&self, svg: &mut String, series: &Series, points: &[(f64, f64)]) {
        let class = series.colour % COLOURS;
        let marked = points.len() <= MARKED;
        let width = (points.len() / 40).max(1);
        let line = |points: &[(f64, f64)]| {
            let places = points.iter().map(|&point| {
                let (x, y) = self.at(point);
                format!("{x:.1},{y:.1}")
            });
            places.collect::<Vec<_>>().join(" ")
        };
        let drawn = means(points, points.len().div_ceil(MOST));
        let noisy = if marked { "" } else { " noisy" };
        let _ = write!(
            svg,
            "<polyline class=\"line c{class}{noisy}\" points=\"{}\"/>",
            line(&drawn)
        );
        if !marked {
            let smooth = means(points, width);
            let _ = write!(
                svg,
                "<polyline class=\"line c{class}\" points=\"{}\"/>",
                line(&smooth)
            );
            return;
        }
        for &point in points {
            let (x, y) = self.at(point);
            let (step, value) = point;
            let _ = write!(
                svg,
                "<circle class=\"dot c{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}: step {step}: {value:.6}</title></circle>",
                Text(&series.name)
            );
        }
    }
}

/// Returns the means of groups of `width` neighbours; the last group may have fewer.
fn means(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    if width <= 1 {
        return points.to_vec();
    }
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let sum = group
            .iter()
            .fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(width).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: Vec<(f64, f64)>) -> Series {
        Series {
            name: "run </title><script>".into(),
            colour: 9,
            points,
        }
    }

    fn chart(series: &[Series]) -> String {
        Chart {
            title: "loss",
            series,
        }
        .svg()
    }

    #[test]
    fn few_points_are_marked_and_names_are_text() {
        let svg = chart(&[series(vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)])]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(
            svg.contains("class=\"line c1\"") && !svg.contains("<script"),
            "{svg}"
        );
        assert!(svg.contains("step 3: 1.000000"), "{svg}");
    }

    #[test]
    fn many_points_are_drawn_by_their_means() {
        let points = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7)));
        let svg = chart(&[series(points.collect())]);
        assert!(svg.len() < 30_000 && svg.matches("<polyline").count() == 2);
    }

    #[test]
    fn one_point_and_none_are_no_division_by_zero() {
        let svg = chart(&[series(vec![(1.0, 2.0)])]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(chart(&[series(vec![(1.0, f64::INFINITY)])]).contains("no finite values"));
        assert!(chart(&[]).contains("no finite values"));
    }
}
