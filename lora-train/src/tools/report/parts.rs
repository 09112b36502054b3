//! Elements of the page.

use super::Named;
use crate::tools::markup::Text;

/// Returns a cell with a number, rounded to be read and exact in `data-value`.
pub(super) fn number(value: Option<f64>, decimals: usize) -> String {
    match value {
        Some(value) if value.is_finite() => {
            let shown = rounded(value, decimals);
            format!("<td class=\"n\" data-value=\"{value}\">{shown}</td>")
        }
        _ => "<td class=\"n none\">–</td>".into(),
    }
}

/// Returns a number with these decimals, or in powers of ten if it would be zero.
pub(super) fn rounded(value: f64, decimals: usize) -> String {
    let least = 10f64.powi(-i32::try_from(decimals).unwrap_or(6));
    if value != 0.0 && value.abs() < least {
        return format!("{value:.2e}");
    }
    format!("{value:.decimals$}")
}

/// Returns a count with spaces between groups of digits.
pub(super) fn count(value: Option<u64>) -> String {
    let Some(value) = value else {
        return "<td class=\"n none\">–</td>".into();
    };
    let digits = value.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    format!("<td class=\"n\" data-value=\"{value}\">{shown}</td>")
}

/// Returns the cell with the name of a run, and behind it more elements of the page.
pub(super) fn run_name(index: usize, run: &Named, more: &str) -> String {
    format!("<th scope=\"row\">{}{more}</th>", label(index, &run.name))
}

/// Returns a name with the colour that its curves have.
pub(super) fn label(index: usize, name: &str) -> String {
    let colour = index % crate::tools::svg::COLOURS;
    format!(
        "<span class=\"key c{colour}\"></span><span class=\"name\">{}</span>",
        Text(name)
    )
}

/// Returns a table that can be scrolled by itself.
pub(super) fn table(
    class: &str,
    header: &[String],
    rows: impl IntoIterator<Item = String>,
) -> String {
    let header: String = header
        .iter()
        .map(|cell| format!("<th scope=\"col\">{cell}</th>"))
        .collect();
    let rows: String = rows
        .into_iter()
        .map(|row| format!("<tr>{row}</tr>\n"))
        .collect();
    format!(
        "<div class=\"scroll\"><table class=\"{class}\"><thead><tr>{header}</tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// Returns a section.
pub(super) fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\"><h2>{title}</h2>\n{content}</section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_beside_what_is_shown() {
        assert_eq!(
            number(Some(0.12345678), 3),
            "<td class=\"n\" data-value=\"0.12345678\">0.123</td>"
        );
        assert_eq!(rounded(0.0002, 3), "2.00e-4");
        assert_eq!(rounded(0.0, 2), "0.00");
        assert!(number(Some(f64::NAN), 3).contains("–") && number(None, 3).contains("–"));
        assert!(count(Some(294_912)).contains(">294\u{202f}912<"));
        assert!(count(Some(7)).contains(">7<"));
    }
}
