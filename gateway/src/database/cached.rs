//! Reads whose answers may be kept: the kept answer where it is of the version that the statement finds, in the round trip
//! that the read would take.

use super::answer::{Answer, Frame, answer};
use super::run::{Rows, exactly};
use super::session::Session;
use crate::cache::{Answered, Kept, Lookup};
use crate::problem::Problem;
use crate::sql::Statement;

impl Session {
    /// All rows of a read that is the session's last statement, as [`Self::last`].
    ///
    /// # Errors
    /// As [`Self::last`].
    pub async fn read_last(&mut self, read: &Statement, most: usize) -> Result<Rows, Problem> {
        let Some(lookup) = self.lookup(read, &Frame::default()).await? else { return self.last(read, most).await };
        let found = self.last(lookup.statement(), most).await?;
        Ok(settled(lookup, found))
    }

    /// All rows of a read that others follow, as [`exactly`].
    ///
    /// # Errors
    /// As [`exactly`].
    pub async fn read_within(&mut self, read: &Statement, most: usize) -> Result<Rows, Problem> {
        let lookup = self.lookup(read, &Frame::default()).await?;
        let lease = self.lease().await?;
        let Some(lookup) = lookup else { return exactly(lease, read, most).await };
        let found = exactly(lease, lookup.statement(), most).await?;
        Ok(settled(lookup, found))
    }

    /// The rows of a read as they arrive; up to `buffer` bytes they are sent whole. It is the session's last statement.
    ///
    /// # Errors
    /// Any error of the server before the answer begins.
    pub async fn stream(mut self, read: &Statement, frame: Frame, buffer: usize) -> Result<Answer, Problem> {
        let in_transaction = self.is_transaction();
        let lookup = self.lookup(read, &frame).await?;
        let lease = self.into_lease().await?;
        let Some(lookup) = lookup else { return answer(lease, read, frame, buffer, in_transaction).await };
        let mut found = answer(lease, lookup.statement(), frame, buffer, in_transaction).await?;
        let version = found.version.take();
        if let Some(kept) = lookup.hit(version.as_deref()) {
            return Ok(Answer::kept(&kept));
        }
        let whole = found.rows.map(|rows| Answered { text: &found.first.bytes, ends: found.first.ends.clone(), rows });
        lookup.carried_out(version, whole);
        Ok(found)
    }

    /// The look at the kept answers for a read, which will be carried out; none, if its answer is not one to be kept.
    async fn lookup(&mut self, read: &Statement, frame: &Frame) -> Result<Option<Lookup>, Problem> {
        let Some(cache) = self.cache().cloned() else { return Ok(None) };
        let settings = self.lease().await?.settings();
        let frame = || format!("{}{}{}", frame.before, frame.between, frame.after);
        let caller = self.caller();
        Ok(cache.lookup((&caller.name, &caller.role, &settings), read, frame))
    }
}

/// The rows that a statement with a version stands for.
fn settled(lookup: Lookup, found: Rows) -> Rows {
    if let Some(kept) = lookup.hit(found.version.as_deref()) {
        return rows(&kept);
    }
    let size: usize = found.rows.iter().map(|(row, _)| row.len()).sum();
    if size > lookup.largest() {
        lookup.carried_out(None, None);
        return found;
    }
    let (mut text, mut ends) = (String::with_capacity(size), Vec::with_capacity(found.rows.len()));
    for (row, _) in &found.rows {
        text.push_str(row);
        ends.push(text.len());
    }
    let answered = Answered { text: text.as_bytes(), ends, rows: found.rows.len() as u64 };
    lookup.carried_out(found.version.clone(), Some(answered));
    found
}

fn rows(kept: &Kept) -> Rows {
    // It was made of texts.
    let text = std::str::from_utf8(&kept.text).unwrap_or_default();
    let mut at = 0;
    let rows = kept.ends.iter().map(|end| {
        let row = text.get(at..*end).unwrap_or_default().to_owned();
        at = *end;
        (row, None)
    });
    Rows { rows: rows.collect(), affected: kept.rows, version: None }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_kept_answer_has_its_rows_again() {
        let (version, text) = ("v".to_owned(), Bytes::from_static("{}{\"a\":\"é\"}".as_bytes()));
        let kept = Kept { version, ends: vec![2, text.len()], text, rows: 2 };
        let found: Vec<String> = rows(&kept).rows.into_iter().map(|(row, _)| row).collect();
        assert_eq!(found, ["{}", "{\"a\":\"é\"}"]);
        let nothing = Kept { version: "v".to_owned(), text: Bytes::new(), ends: Vec::new(), rows: 0 };
        assert!(rows(&nothing).rows.is_empty());
    }
}
