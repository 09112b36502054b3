//! Heat maps of values from 0 to 1, side by side.

use super::scale::{colour, level};
use crate::tools::markup::Text;
use std::fmt::Write;

/// Side of a map in pixels, and the room around it for labels.
const SIDE: f64 = 240.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;
/// Number of rows or columns above which some are left out: more have no room.
const MOST: usize = 96;

/// Heat map of a grid of values from 0 to 1, whose rows and columns are counted from 1.
pub(in crate::tools) struct HeatMap<'a> {
    /// Title.
    pub title: &'a str,
    /// Name of the rows.
    pub rows: &'a str,
    /// Name of the columns.
    pub columns: &'a str,
    /// Values by row, `φ(1, 1)` first.
    pub values: &'a [Vec<f64>],
}

/// Returns an SVG file with these maps and their scale.
pub(in crate::tools) fn heat_maps(title: &str, maps: &[HeatMap]) -> String {
    let width = maps.len() as f64 * (LEFT + SIDE) + 84.0;
    let height = TOP + SIDE + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\
         <title>{title}</title>\
         <style>text{{font:12px system-ui,sans-serif;fill:#222}}.h{{font-size:14px;font-weight:600}}\
         @media(prefers-color-scheme:dark){{text{{fill:#ddd}}}}</style>\
         <text class=\"h\" x=\"{LEFT}\" y=\"22\">{title}</text>\n",
        title = Text(title)
    );
    for (index, map) in maps.iter().enumerate() {
        add_map(&mut svg, map, LEFT + index as f64 * (LEFT + SIDE));
    }
    add_scale(&mut svg, maps.len() as f64 * (LEFT + SIDE) + 20.0);
    svg.push_str("</svg>\n");
    svg
}

/// Returns at most [`MOST`] indices of so many, the first and the last among them.
fn shown(count: usize) -> Vec<usize> {
    if count <= MOST {
        return (0..count).collect();
    }
    let last = (count - 1) as f64 / (MOST - 1) as f64;
    (0..MOST)
        .map(|i| (i as f64 * last).round() as usize)
        .collect()
}

fn add_map(svg: &mut String, map: &HeatMap, x: f64) {
    let columns = map.values.first().map_or(0, Vec::len);
    let (rows, columns) = (shown(map.values.len()), shown(columns));
    if rows.is_empty() || columns.is_empty() {
        return;
    }
    let (height, width) = (SIDE / rows.len() as f64, SIDE / columns.len() as f64);
    let _ = write!(
        svg,
        "<text x=\"{x}\" y=\"50\">{}</text><g shape-rendering=\"crispEdges\">",
        Text(map.title)
    );
    for (at, &row) in rows.iter().enumerate() {
        // Neighbours of one colour are one rectangle.
        let levels: Vec<u8> = columns.iter().map(|&c| level(map.values[row][c])).collect();
        let mut first = 0;
        while first < levels.len() {
            let same = levels[first..].iter().take_while(|&&l| l == levels[first]);
            let count = same.count();
            let _ = write!(
                svg,
                "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{height:.2}\" fill=\"{}\"/>",
                x + first as f64 * width,
                TOP + at as f64 * height,
                count as f64 * width,
                colour(levels[first])
            );
            first += count;
        }
    }
    svg.push_str("</g>");
    let middle = |count: usize| [0, count / 2, count - 1];
    for at in middle(columns.len()) {
        let place = x + (at as f64 + 0.5) * width;
        let number = columns[at] + 1;
        let y = TOP + SIDE + 16.0;
        let _ = write!(
            svg,
            "<text x=\"{place:.1}\" y=\"{y}\" text-anchor=\"middle\">{number}</text>"
        );
    }
    for at in middle(rows.len()) {
        let place = TOP + (at as f64 + 0.5) * height + 4.0;
        let number = rows[at] + 1;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{place:.1}\" text-anchor=\"end\">{number}</text>",
            x - 6.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate({} {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        x + SIDE / 2.0,
        TOP + SIDE + 36.0,
        Text(map.columns),
        x - 34.0,
        TOP + SIDE / 2.0,
        Text(map.rows),
    );
}

fn add_scale(svg: &mut String, x: f64) {
    const STEPS: u8 = 63;
    let height = SIDE / f64::from(STEPS + 1);
    svg.push_str("<g shape-rendering=\"crispEdges\">");
    for step in 0..=STEPS {
        let y = TOP + SIDE - f64::from(step + 1) * height;
        let colour = colour(step);
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{y:.2}\" width=\"14\" height=\"{height:.2}\" fill=\"{colour}\"/>"
        );
    }
    svg.push_str("</g>");
    for value in [0.0, 0.5, 1.0] {
        let y = TOP + SIDE * (1.0 - value) + 4.0;
        let _ = write!(svg, "<text x=\"{}\" y=\"{y}\">{value}</text>", x + 20.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_a_rectangle_for_each_run_of_a_colour() {
        let values = vec![vec![0.0, 0.0, 1.0], vec![0.5, 1.0, 1.0]];
        let map = HeatMap {
            title: "A of <first>",
            rows: "i",
            columns: "j",
            values: &values,
        };
        let svg = heat_maps("φ & more", &[map]);
        // Two runs in each row, and the scale of 64.
        assert_eq!(svg.matches("<rect").count(), 4 + 64);
        assert!(svg.contains("φ &amp; more") && svg.contains("A of &lt;first&gt;"));
        assert!(svg.contains("fill=\"#440154\"") && svg.contains("fill=\"#fde725\""));
    }

    #[test]
    fn of_many_rows_the_first_and_the_last_are_shown() {
        let shown = shown(1000);
        assert_eq!((shown.len(), shown[0], shown[MOST - 1]), (MOST, 0, 999));
    }
}
