//! Queries of `WikiSQL`, as text and back.

use std::collections::BTreeSet;

use super::tables::SqlTable;

/// Aggregate of the selected column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "SQL's")]
pub enum Aggregate {
    /// The values themselves.
    None,
    Max,
    Min,
    Count,
    Sum,
    Avg,
}

impl Aggregate {
    /// All of them, by their numbers in the files.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Max,
        Self::Min,
        Self::Count,
        Self::Sum,
        Self::Avg,
    ];

    /// Returns SQL's name; empty for none.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Max => "MAX",
            Self::Min => "MIN",
            Self::Count => "COUNT",
            Self::Sum => "SUM",
            Self::Avg => "AVG",
        }
    }
}

/// Comparison of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "SQL's")]
pub enum Operator {
    Equal,
    Greater,
    Less,
}

impl Operator {
    /// All of them, by their numbers in the files. The files know a fourth, `OP`, which no query has.
    pub const ALL: [Self; 3] = [Self::Equal, Self::Greater, Self::Less];

    /// Returns SQL's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Greater => ">",
            Self::Less => "<",
        }
    }
}

/// Value of a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlValue {
    /// Text.
    Text(String),
    /// Number, as it is written.
    Number(String),
}

impl SqlValue {
    /// Returns the text, or the number as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

/// Condition on a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Index of the column.
    pub column: usize,
    /// Comparison.
    pub operator: Operator,
    /// Value to compare with.
    pub value: SqlValue,
}

/// Query on one table: a column, or an aggregate of it, of the rows that meet all conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlQuery {
    /// Index of the selected column.
    pub column: usize,
    /// Aggregate of it.
    pub aggregate: Aggregate,
    /// Conditions on rows.
    pub conditions: Vec<Condition>,
}

impl SqlQuery {
    /// Writes the query with the names of the table's columns.
    pub fn text(&self, table: &SqlTable) -> String {
        let name = |column: usize| quoted(&table.header[column]);
        let mut text = match self.aggregate {
            Aggregate::None => format!("SELECT {} FROM table", name(self.column)),
            aggregate => format!(
                "SELECT {}({}) FROM table",
                aggregate.name(),
                name(self.column)
            ),
        };
        for (at, condition) in self.conditions.iter().enumerate() {
            let before = if at == 0 { "WHERE" } else { "AND" };
            let value = match &condition.value {
                SqlValue::Text(text) => format!("'{}'", text.replace('\'', "''")),
                SqlValue::Number(number) => number.clone(),
            };
            let (column, sign) = (name(condition.column), condition.operator.sign());
            text.push_str(&format!(" {before} {column} {sign} {value}"));
        }
        text
    }

    /// Reads a query about a table in the form of [`text`](Self::text), with key words and names in any case; a semicolon may
    /// follow. `None` for anything else.
    pub fn parse(text: &str, table: &SqlTable) -> Option<Self> {
        let mut rest = Scanner(text.trim());
        rest.word("select")?;
        let mut aggregates = Aggregate::ALL[1..].iter();
        let aggregate = aggregates.find(|aggregate| rest.call(aggregate.name()).is_some());
        let column = table.column(&rest.quoted('"')?)?;
        if aggregate.is_some() {
            rest.sign(")")?;
        }
        rest.word("from")?;
        rest.word("table")?;
        let mut conditions = Vec::new();
        let mut before = "where";
        while rest.word(before).is_some() {
            before = "and";
            conditions.push(Condition {
                column: table.column(&rest.quoted('"')?)?,
                operator: *Operator::ALL
                    .iter()
                    .find(|operator| rest.sign(operator.sign()).is_some())?,
                value: match rest.quoted('\'') {
                    Some(text) => SqlValue::Text(text),
                    None => SqlValue::Number(rest.number()?),
                },
            });
        }
        let _ = rest.sign(";");
        rest.0.is_empty().then_some(Self {
            column,
            aggregate: aggregate.copied().unwrap_or(Aggregate::None),
            conditions,
        })
    }

    /// Returns true if the queries have the same logical form: the same column, aggregate and conditions, whatever the order
    /// of these and the case of their values, as in `WikiSQL`'s own evaluation.
    pub fn is_same_form(&self, other: &Self) -> bool {
        let conditions = |query: &Self| -> BTreeSet<(usize, Operator, String)> {
            let conditions = query.conditions.iter();
            conditions
                .map(|it| (it.column, it.operator, it.value.as_str().to_lowercase()))
                .collect()
        };
        self.column == other.column
            && self.aggregate == other.aggregate
            && conditions(self) == conditions(other)
    }
}

/// Writes a name in double quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Rest of a query. What is not there leaves it as it is.
struct Scanner<'a>(&'a str);

impl Scanner<'_> {
    /// Takes a key word in lower case, and the white space after it.
    fn word(&mut self, word: &str) -> Option<()> {
        let start = self.0.get(..word.len())?;
        let rest = &self.0[word.len()..];
        let ends = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        (start.eq_ignore_ascii_case(word) && ends).then(|| self.0 = rest.trim_start())
    }

    /// Takes the name of an aggregate and its bracket.
    fn call(&mut self, name: &str) -> Option<()> {
        let before = self.0;
        self.word(&name.to_lowercase())?;
        let found = self.sign("(");
        if found.is_none() {
            self.0 = before;
        }
        found
    }

    fn sign(&mut self, sign: &str) -> Option<()> {
        let rest = self.0.strip_prefix(sign)?;
        self.0 = rest.trim_start();
        Some(())
    }

    /// Takes a text in quotes; doubled quotes in it become single.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut rest = self.0.strip_prefix(quote)?;
        let mut text = String::new();
        loop {
            let (part, after) = rest.split_once(quote)?;
            text.push_str(part);
            match after.strip_prefix(quote) {
                Some(more) => {
                    text.push(quote);
                    rest = more;
                }
                None => {
                    self.0 = after.trim_start();
                    return Some(text);
                }
            }
        }
    }

    /// Takes a number.
    fn number(&mut self) -> Option<String> {
        let end = self.0.find(|c: char| c.is_whitespace() || c == ';');
        let (number, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        let is_number = number.parse::<f64>().is_ok_and(f64::is_finite);
        is_number.then(|| {
            self.0 = rest.trim_start();
            number.to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::ColumnType;
    use super::*;

    fn table() -> SqlTable {
        SqlTable {
            header: ["Player", "No. \"old\"", "Sum (km)"]
                .map(String::from)
                .into(),
            types: vec![ColumnType::Text, ColumnType::Real, ColumnType::Text],
            rows: Vec::new(),
        }
    }

    fn query() -> SqlQuery {
        let condition = |column, operator, value| Condition {
            column,
            operator,
            value,
        };
        SqlQuery {
            column: 2,
            aggregate: Aggregate::Avg,
            conditions: vec![
                condition(
                    0,
                    Operator::Equal,
                    SqlValue::Text("O'Neal AND \"co\"".into()),
                ),
                condition(1, Operator::Less, SqlValue::Number("-3.5".into())),
            ],
        }
    }

    #[test]
    fn a_query_comes_back_from_its_text() {
        let (table, query) = (table(), query());
        let text = query.text(&table);
        assert_eq!(
            text,
            "SELECT AVG(\"Sum (km)\") FROM table WHERE \"Player\" = 'O''Neal AND \"co\"' AND \
             \"No. \"\"old\"\"\" < -3.5"
        );
        assert_eq!(SqlQuery::parse(&text, &table), Some(query.clone()));
        let plain = SqlQuery {
            aggregate: Aggregate::None,
            conditions: Vec::new(),
            ..query
        };
        let text = plain.text(&table);
        assert_eq!(SqlQuery::parse(&text, &table), Some(plain.clone()));
        let loose = "select  \"sum (KM)\"\nfrom TABLE ;";
        assert_eq!(SqlQuery::parse(loose, &table), Some(plain));
    }

    #[test]
    fn anything_else_is_no_query() {
        for text in [
            "",
            "SELECT Player FROM table",
            "SELECT \"Player\" FROM tables",
            "SELECT \"Points\" FROM table",
            "SELECT MAX(\"Player\" FROM table",
            "SELECT \"Player\" FROM table WHERE",
            "SELECT \"Player\" FROM table WHERE \"Player\" = 'open",
            "SELECT \"Player\" FROM table WHERE \"Player\" LIKE 'a'",
            "SELECT \"Player\" FROM table WHERE \"Player\" = 'a' OR \"Player\" = 'b'",
            "SELECT \"Player\" FROM table; DROP TABLE table",
            "SELECT \"Player\" FROM table WHERE \"Player\" = é",
        ] {
            assert_eq!(SqlQuery::parse(text, &table()), None, "{text}");
        }
    }

    #[test]
    fn the_order_of_conditions_and_the_case_of_values_do_not_matter() {
        let query = query();
        let mut other = query.clone();
        other.conditions.reverse();
        other.conditions[1].value = SqlValue::Text("o'neal and \"CO\"".into());
        other.conditions[0].value = SqlValue::Text("-3.5".into());
        assert!(query.is_same_form(&other));
        other.conditions[0].operator = Operator::Greater;
        assert!(!query.is_same_form(&other));
    }
}
