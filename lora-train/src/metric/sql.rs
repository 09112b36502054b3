//! Accuracy of generated queries, as `evaluate.py` of `WikiSQL` measures it.

use super::error;
#[cfg(feature = "wikisql")]
use super::sql_database::Database;
use crate::data::{SqlQuery, SqlTable, SqlTables};
use crate::error::TrainError;

const METRIC: &str = "WikiSQL";

/// Counts of right queries.
///
/// The logical form is right if column, aggregate and conditions are those of the reference, in any order. The execution is right
/// if both queries give the same values on the real table, which is built from the rows of the file of tables; it is measured in
/// builds with the feature `wikisql`. A text that is no query is wrong in both.
pub struct SqlScorer<'a> {
    tables: &'a SqlTables,
    #[cfg(feature = "wikisql")]
    database: Database,
    all: usize,
    same_form: usize,
    #[cfg(feature = "wikisql")]
    same_values: usize,
}

impl<'a> SqlScorer<'a> {
    /// Creates the scorer of queries on these tables.
    ///
    /// # Errors
    /// If the database in memory cannot be created.
    pub fn new(tables: &'a SqlTables) -> Result<Self, TrainError> {
        Ok(Self {
            tables,
            #[cfg(feature = "wikisql")]
            database: Database::new().map_err(|message| error(METRIC, message))?,
            all: 0,
            same_form: 0,
            #[cfg(feature = "wikisql")]
            same_values: 0,
        })
    }

    /// Checks that a reference is a query on the table of an id, and can be executed there.
    ///
    /// # Errors
    /// [`TrainError::Metric`] as [`add`](Self::add).
    pub fn check(&mut self, id: &str, reference: &str) -> Result<(), TrainError> {
        let (table, right) = self.parse(id, reference)?;
        self.execute((id, table), None, &right).map(drop)
    }

    /// Parses a reference, and returns it with its table.
    fn parse(&self, id: &str, reference: &str) -> Result<(&'a SqlTable, SqlQuery), TrainError> {
        let table = self.tables.get(id).ok_or_else(|| {
            let path = self.tables.path().display();
            error(METRIC, format!("the table `{id}` is not in {path}"))
        })?;
        let right = SqlQuery::parse(reference, table);
        let right = right.ok_or_else(|| {
            error(
                METRIC,
                format!("the reference `{reference}` is no query on the table `{id}`"),
            )
        })?;
        Ok((table, right))
    }

    /// Adds a generated text and its reference, on the table of an id.
    ///
    /// # Errors
    /// [`TrainError::Metric`] if there is no such table, or the reference is no query or cannot be executed.
    pub fn add(&mut self, id: &str, text: &str, reference: &str) -> Result<(), TrainError> {
        let (table, right) = self.parse(id, reference)?;
        self.all += 1;
        let found = SqlQuery::parse(text, table);
        if found
            .as_ref()
            .is_some_and(|found| found.is_same_form(&right))
        {
            self.same_form += 1;
        }
        let is_right = self.execute((id, table), found.as_ref(), &right)?;
        #[cfg(feature = "wikisql")]
        {
            self.same_values += usize::from(is_right);
        }
        #[cfg(not(feature = "wikisql"))]
        let _ = is_right;
        Ok(())
    }

    /// Executes both queries, and returns true if they give the same values.
    #[cfg(feature = "wikisql")]
    fn execute(
        &mut self,
        (id, table): (&str, &SqlTable),
        found: Option<&SqlQuery>,
        right: &SqlQuery,
    ) -> Result<bool, TrainError> {
        let expected = self.database.execute(id, table, right).map_err(|message| {
            let text = right.text(table);
            error(
                METRIC,
                format!("the reference `{text}` on the table `{id}`: {message}"),
            )
        })?;
        let values = found.map(|found| self.database.execute(id, table, found));
        Ok(values.is_some_and(|values| values.is_ok_and(|values| values == expected)))
    }

    #[cfg(not(feature = "wikisql"))]
    fn execute(
        &mut self,
        _table: (&str, &SqlTable),
        _found: Option<&SqlQuery>,
        _right: &SqlQuery,
    ) -> Result<bool, TrainError> {
        Ok(false)
    }

    /// Returns the share of right logical forms.
    ///
    /// # Errors
    /// [`TrainError::Metric`] if nothing was added.
    pub fn logical_form(&self) -> Result<f64, TrainError> {
        if self.all == 0 {
            return Err(error(METRIC, "no query to score; expected at least one"));
        }
        Ok(self.same_form as f64 / self.all as f64)
    }

    /// Returns the share of right executions; `None` in a build without the feature `wikisql`, or if nothing was added.
    pub fn execution(&self) -> Option<f64> {
        #[cfg(feature = "wikisql")]
        let right = Some(self.same_values);
        #[cfg(not(feature = "wikisql"))]
        let right: Option<usize> = None;
        let right = right.filter(|_| self.all > 0)?;
        Some(right as f64 / self.all as f64)
    }
}
