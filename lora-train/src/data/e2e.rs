//! Files of the E2E NLG Challenge: a meaning representation and a reference text in each row.
//!
//! The challenge publishes CSV; the text files are those of Li and Liang (2021) and microsoft/LoRA:
//!
//! ```text
//! mr,ref
//! "name[Alimentum], area[city centre]",Alimentum lies in the city centre.
//!
//! name : Alimentum | area : city centre||Alimentum lies in the city centre .
//! ```
//!
//! A meaning representation with several references stands in as many rows.

use std::path::Path;

use super::lines::Lines;
use super::record::{Each, Origin};
use super::rows::{Dialect, Header, Rows};
use super::template::PairTemplate;
use crate::error::TrainError;

/// Delimiter of the two halves of a line.
const DELIMITER: &str = "||";

/// Attributes of the challenge's files that the text files call otherwise.
const ATTRIBUTES: [(&str, &str); 3] = [
    ("eatType", "Type"),
    ("priceRange", "price"),
    ("familyFriendly", "family friendly"),
];

/// Attribute whose values the text files split into words: `£20-25` is `£ 20 - 25` there.
const PRICE: &str = "priceRange";

/// Calls a function with each pair of the file. Blank lines are skipped. Meaning representations of the challenge's CSV become those of the
/// text files; reference texts are as they are, and not split into words.
pub(super) fn each(path: &Path, template: &PairTemplate, each: Each<'_>) -> Result<(), TrainError> {
    let mut lines = Lines::open(path)?;
    let mut is_first = true;
    while let Some((line, origin)) = lines.next_text()? {
        if std::mem::take(&mut is_first) && is_header(&line) {
            return each_row(path, template, each);
        }
        let Some((meaning, reference)) = split(&line) else {
            return Err(origin.error(format!(
                "expected `meaning representation{DELIMITER}reference`, both not empty; if this \
                 is plain text, give the format `text`"
            )));
        };
        each(template.record(meaning, reference, origin))?;
    }
    Ok(())
}

/// Returns true for the first line of the challenge's CSV.
pub(super) fn is_header(line: &str) -> bool {
    let names = line.trim().split(',').map(|name| name.trim_matches('"'));
    let names: Vec<String> = names.map(str::to_lowercase).collect();
    matches!(
        names.iter().map(String::as_str).collect::<Vec<_>>()[..],
        ["mr"] | ["mr", "ref"]
    )
}

/// Reads the challenge's CSV.
fn each_row(path: &Path, template: &PairTemplate, each: Each<'_>) -> Result<(), TrainError> {
    let mut rows = Rows::open(path, Dialect::Csv)?;
    let Some((names, _)) = rows.next_row()? else {
        return Ok(());
    };
    let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    if !Header::new(&names).has("ref") {
        let message = "has meaning representations without references; the file with both is `testset_w_refs.csv`";
        return Err(TrainError::data_format(path, message));
    }
    while let Some((row, origin)) = rows.next_row()? {
        // The header has these two columns and no other.
        let (meaning, reference) = (&row[0], &row[1]);
        if meaning.trim().is_empty() || reference.trim().is_empty() {
            return Err(origin.error("expected a meaning representation and a reference"));
        }
        let meaning = attributes(meaning, &origin)?;
        each(template.record(&meaning, reference, origin))?;
    }
    Ok(())
}

/// Writes `name[Alimentum], area[city centre]` as `name : Alimentum | area : city centre`.
fn attributes(meaning: &str, origin: &Origin) -> Result<String, TrainError> {
    let mut pairs = Vec::new();
    let mut rest = meaning.trim();
    while !rest.is_empty() {
        let pair = rest.split_once('[').and_then(|(name, after)| {
            let (value, after) = after.split_once(']')?;
            Some((name.trim(), value.trim(), after.trim()))
        });
        let Some((name, value, after)) = pair.filter(|(name, ..)| !name.is_empty()) else {
            let message = format!(
                "expected attributes as in `name[Alimentum], area[city centre]`, found `{rest}`"
            );
            return Err(origin.error(message));
        };
        let mut others = ATTRIBUTES.iter();
        let other = others.find(|(attribute, _)| *attribute == name);
        let value = if name == PRICE {
            split_price(value)
        } else {
            value.to_string()
        };
        pairs.push(format!(
            "{} : {value}",
            other.map_or(name, |(_, other)| other)
        ));
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Ok(pairs.join(" | "))
}

/// Splits a price into words, as the text files have it: `more than £30` becomes `more than £ 30`.
fn split_price(value: &str) -> String {
    let apart = value.replace('\u{a3}', " \u{a3} ").replace('-', " - ");
    apart.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Splits a line at the first delimiter into its trimmed halves; `None` if there is no delimiter, or one side of it is
/// blank.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    let (meaning, reference) = line.split_once(DELIMITER)?;
    let (meaning, reference) = (meaning.trim(), reference.trim());
    (!meaning.is_empty() && !reference.is_empty()).then_some((meaning, reference))
}

#[cfg(test)]
mod tests {
    use super::super::format::DataFormat;
    use super::super::record::{Record, collect};
    use super::*;
    use std::io::Write;

    fn read_text(text: &str, template: &PairTemplate) -> Result<Vec<Record>, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        collect(|record| each(file.path(), template, record))
    }

    fn usual() -> PairTemplate {
        DataFormat::E2e.template()
    }

    #[test]
    fn a_pair_becomes_a_prompt_with_the_delimiter_and_a_completion_after_a_space() {
        let records = read_text(
            "\n name : Alimentum | area : city centre||Alimentum is there . \n",
            &usual(),
        )
        .unwrap();
        let origin = records[0].origin.clone();
        assert_eq!(origin.line(), 2);
        assert_eq!(
            records,
            [Record::prompt_completion(
                "name : Alimentum | area : city centre ||",
                " Alimentum is there .",
                origin
            )]
        );
    }

    #[test]
    fn the_template_of_microsoft_lora_puts_endoftext_between() {
        let records = read_text("a : b||c .", &PairTemplate::microsoft_lora()).unwrap();
        let origin = records[0].origin.clone();
        assert_eq!(
            records,
            [Record::prompt_completion(
                "a : b<|endoftext|>",
                " c .",
                origin
            )]
        );
    }

    #[test]
    fn the_table_of_the_challenge_becomes_the_pairs_of_the_text_files() {
        let records = read_text(
            "mr,ref\r\n\"name[The Mill], eatType[pub], priceRange[\u{a3}20-25], familyFriendly[no], customer rating[5 out of 5]\",\"A pub, The Mill.\"\r\n",
            &usual(),
        )
        .unwrap();
        let expected = "name : The Mill | Type : pub | price : \u{a3} 20 - 25 | family friendly : no | customer rating : 5 out of 5 ||";
        assert_eq!(records[0].content.prompt(), Some(expected));
        assert_eq!(records[0].origin.line(), 2);
        for (text, line) in [
            ("MR\n\"name[A]\"\n", "testset_w_refs.csv"),
            (
                "mr,ref\nname[A],a\nname A,b\n",
                "line 3: expected attributes",
            ),
            ("mr,ref\nname[A],\n", "line 2: expected a meaning"),
        ] {
            let message = read_text(text, &usual()).unwrap_err().to_string();
            assert!(message.contains(line), "{message}");
        }
    }

    #[test]
    fn only_the_first_delimiter_splits() {
        assert_eq!(split("a || b || c"), Some(("a", "b || c")));
    }

    #[test]
    fn a_line_without_both_halves_is_named() {
        for line in ["no delimiter", "only meaning||  ", "||only reference"] {
            let text = format!("a||b\n{line}\n");
            let message = read_text(&text, &usual()).unwrap_err().to_string();
            assert!(message.contains("line 2: expected"), "{message}");
        }
    }
}
