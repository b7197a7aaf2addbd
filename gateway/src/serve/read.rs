//! Reads of collections: `GET /{c}`, `POST /{c}/query`, `GET /{c}/{id}`, `/count`, `/aggregate`.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};

use super::operation::{LARGEST, Media, Operation, Reply, Target, bounds};
use super::page::{NEXT_PAGE_TOKEN, Page, without_pages};
use crate::catalog::{Catalog, Table};
use crate::config::Config;
use crate::database::{Answer, Caller, Frame, Session, plan_rows};
use crate::problem::Problem;
use crate::request::{self, Count, Item, Prefer, Query, pairs};
use crate::sql::{self, Form, Statement};

/// A read of several rows, ready to run.
pub struct Plan {
    /// The rows.
    pub statement: Statement,
    /// Their number without the range, where it is asked for.
    counting: Option<(Count, Statement)>,
    media: Media,
    offset: u64,
    limit: Option<u64>,
    /// The page, where the rows are divided into pages.
    page: Option<Page>,
    prefer: Prefer,
    head: bool,
    separate: bool,
}

/// The number of all rows beyond which `count=estimated` is the planner's.
const ESTIMATED_FROM: u64 = 1_000;

/// The read of several rows that an operation is; none, if it is another one.
///
/// # Errors
/// As [`plan`].
pub(super) fn planned(
    catalog: &Catalog,
    config: &Config,
    caller: &Caller,
    operation: &Operation,
) -> Result<Option<Plan>, Problem> {
    let reads = operation.method == Method::GET || operation.method == Method::HEAD;
    match &operation.target {
        Target::Collection(name) if reads => plan(catalog, config, caller, operation, name, false).map(Some),
        Target::Query(name) => plan(catalog, config, caller, operation, name, true).map(Some),
        _ => Ok(None),
    }
}

/// Plans `GET /{c}` or `POST /{c}/query`.
///
/// # Errors
/// If the request cannot be read, or names what is not there.
pub fn plan(
    catalog: &Catalog,
    config: &Config,
    caller: &Caller,
    operation: &Operation,
    collection: &str,
    tree: bool,
) -> Result<Plan, Problem> {
    let table = catalog.table(operation.schema(), collection)?;
    let (media, prefer) = (operation.media()?, operation.prefer()?);
    let mut query = asked(operation, config, tree)?;
    within(operation, config, &mut query)?;
    let page = Page::asked(caller, operation, catalog, table, &query, tree)?;
    let statement = match &page {
        Some(page) => page.statement(catalog, table, &query, media.form)?,
        None => sql::rows(catalog, table, &query, media.form)?,
    };
    let counting =
        prefer.count.map(|count| Ok::<_, Problem>((count, counting(catalog, table, &query, count)?))).transpose()?;
    Ok(Plan {
        statement,
        counting,
        media,
        offset: query.offset.unwrap_or(0),
        limit: query.limit,
        page,
        prefer,
        head: operation.method == Method::HEAD,
        separate: operation.separate,
    })
}

/// The query: a JSON tree, or the query string.
fn asked(operation: &Operation, config: &Config, tree: bool) -> Result<Query, Problem> {
    if tree {
        return request::query(&operation.body, bounds(&config.limits));
    }
    Ok(pairs(&operation.query, bounds(&config.limits), |_| false)?.query)
}

/// Applies the `Range` header, and the most rows of an answer.
pub(super) fn within(operation: &Operation, config: &Config, query: &mut Query) -> Result<(), Problem> {
    if operation.method == Method::GET
        && let Some((first, length)) = operation.range()?
    {
        // Within what the query string asks for.
        query.offset = Some(query.offset.unwrap_or(0).saturating_add(first).min(LARGEST));
        query.limit = match (query.limit.map(|limit| limit.saturating_sub(first)), length) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    if let Some(most) = config.limits.rows {
        query.limit = Some(query.limit.map_or(most, |limit| limit.min(most)));
    }
    Ok(())
}

/// The statement whose rows are counted: for the planner's number, the rows themselves.
fn counting(catalog: &Catalog, table: &Table, query: &Query, count: Count) -> Result<Statement, Problem> {
    match count {
        Count::Exact => sql::count(catalog, table, query),
        Count::Planned | Count::Estimated => {
            let query = Query { order: Vec::new(), limit: None, offset: None, ..query.clone() };
            sql::rows(catalog, table, &query, Form::Json)
        }
    }
}

async fn counted(
    session: &mut Session,
    count: Count,
    statement: &Statement,
    exact: &Statement,
) -> Result<u64, Problem> {
    match count {
        Count::Exact => number(session, statement).await,
        Count::Planned => plan_rows(session.lease().await?, statement).await,
        Count::Estimated => {
            let planned = plan_rows(session.lease().await?, statement).await?;
            if planned > ESTIMATED_FROM { Ok(planned) } else { number(session, exact).await }
        }
    }
}

async fn number(session: &mut Session, statement: &Statement) -> Result<u64, Problem> {
    let found = session.read_within(statement, 64).await?;
    Ok(found.rows.first().and_then(|(text, _)| text.parse().ok()).unwrap_or(0))
}

impl Plan {
    /// The transaction that it needs: where several statements must see the same rows.
    pub fn begin(&self) -> Option<&'static str> {
        self.counting.as_ref().map(|_| "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    async fn total(&self, session: &mut Session) -> Result<Option<u64>, Problem> {
        let Some((count, statement)) = &self.counting else { return Ok(None) };
        // Wrapped, the rows can be counted as they are.
        let exact = Statement {
            sql: format!("SELECT pg_catalog.count(*)::pg_catalog.text FROM ({}) AS c", statement.sql),
            ..statement.clone()
        };
        let total = counted(session, *count, statement, &exact).await?;
        if self.offset > 0 && self.offset > total && *count == Count::Exact {
            let mut problem =
                Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "the range begins after the last row")
                    .details(format!("an offset of {} was asked for, and there are {total} rows", self.offset));
            problem.total = Some(total);
            return Err(problem);
        }
        Ok(Some(total))
    }

    /// Runs it in a session where it may be one of several; the answer is whole.
    ///
    /// # Errors
    /// Any error of the server; 406, if one object is asked for and there is not one row.
    pub async fn collect(&self, session: &mut Session, most: usize) -> Result<Reply, Problem> {
        let total = self.total(session).await?;
        if self.head {
            return Ok(self.reply(Bytes::new(), None, total));
        }
        let mut found = session.read_last(&self.statement, most).await?;
        let next = match &self.page {
            Some(page) => page.cut(&mut found.rows)?,
            None => None,
        };
        let texts: Vec<&str> = found.rows.iter().map(|(text, _)| text.as_str()).collect();
        let rows = texts.len() as u64;
        let body = if self.media.singular {
            single(&texts)?.to_owned()
        } else {
            let frame = self.frame();
            format!("{}{}{}", frame.before, texts.join(frame.between), frame.after)
        };
        let mut reply = self.reply(Bytes::from(body), Some(rows), total);
        reply.rows = rows;
        if let Some(next) = next {
            reply.header(HeaderName::from_static(NEXT_PAGE_TOKEN), &next);
        }
        Ok(reply)
    }

    /// Runs it in a session of its own, and sends the rows as they arrive.
    ///
    /// # Errors
    /// Any error of the server.
    pub async fn stream(&self, mut session: Session, config: &Config) -> Result<(Reply, Answer), Problem> {
        // The token of the next page is in the header: it follows from the last row.
        if self.head || self.media.singular || self.page.is_some() {
            let reply = self.collect(&mut session, config.limits.write_answer_bytes).await;
            let reply = session.finish(reply).await?;
            let answer = Answer::whole(reply.body.clone(), reply.rows);
            return Ok((reply, answer));
        }
        let total = match self.total(&mut session).await {
            Ok(total) => total,
            Err(problem) => return session.finish(Err(problem)).await,
        };
        let answer = session.stream(&self.statement, self.frame(), config.limits.buffer_bytes).await?;
        // Of an answer that is still being sent, the number of rows follows from the total.
        let rows = answer.rows.or_else(|| {
            let left = total.filter(|_| self.is_counted_exactly())?.saturating_sub(self.offset);
            Some(self.limit.map_or(left, |limit| limit.min(left)))
        });
        let mut reply = self.reply(Bytes::new(), rows, total);
        reply.rows = rows.unwrap_or(0);
        Ok((reply, answer))
    }

    fn is_counted_exactly(&self) -> bool {
        self.counting.as_ref().is_some_and(|(count, _)| *count == Count::Exact)
    }

    fn frame(&self) -> Frame {
        if self.separate {
            return Frame::default();
        }
        frame(self.media.form, &self.statement.columns)
    }

    /// Status and headers.
    fn reply(&self, body: Bytes, rows: Option<u64>, total: Option<u64>) -> Reply {
        // An estimate may be lower than what was read.
        let total = match rows {
            Some(rows) if rows > 0 && !self.is_counted_exactly() => total.map(|total| total.max(self.offset + rows)),
            _ => total,
        };
        let mut reply = Reply::new(StatusCode::OK);
        (reply.body, reply.total) = (body, total);
        reply.header(header::CONTENT_TYPE, self.media.content_type());
        // HEAD: as GET would have it.
        let rows = rows.or_else(|| {
            let left = total?.saturating_sub(self.offset);
            Some(self.limit.map_or(left, |limit| limit.min(left)))
        });
        let range = match rows {
            // The place of a page among all rows is not known.
            _ if self.page.is_some() => total.map(|_| "*".to_owned()),
            Some(0) => Some("*".to_owned()),
            Some(rows) => Some(format!("{}-{}", self.offset, self.offset + rows - 1)),
            None => None,
        };
        if let Some(range) = range {
            reply.header(
                header::CONTENT_RANGE,
                &format!("{range}/{}", total.map_or("*".to_owned(), |total| total.to_string())),
            );
        }
        if total.zip(rows).is_some_and(|(total, rows)| rows < total) {
            reply.status = StatusCode::PARTIAL_CONTENT;
        }
        applied(&mut reply, &self.prefer);
        reply
    }
}

/// Names the preferences that were understood.
pub(super) fn applied(reply: &mut Reply, prefer: &Prefer) {
    if let Some(applied) = prefer.applied() {
        reply.header(http::HeaderName::from_static("preference-applied"), &applied);
    }
}

/// What stands around rows of this form.
pub(super) fn frame(form: Form, columns: &[String]) -> Frame {
    match form {
        Form::Csv => {
            let quoted = columns.iter().map(|column| {
                if column.contains([',', '"', '\n']) {
                    format!("\"{}\"", column.replace('"', "\"\""))
                } else {
                    column.clone()
                }
            });
            Frame { before: format!("{}\n", quoted.collect::<Vec<_>>().join(",")), between: "\n", after: "" }
        }
        _ => Frame { before: "[".to_owned(), between: ",\n ", after: "]" },
    }
}

/// The only one.
///
/// # Errors
/// 406, if there is none or another one.
pub(super) fn single<'a>(texts: &[&'a str]) -> Result<&'a str, Problem> {
    match texts {
        [only] => Ok(only),
        _ => Err(not_one(texts.len() as u64)),
    }
}

/// The answer to a request for one object, where there are so many.
pub(super) fn not_one(rows: u64) -> Problem {
    Problem::new(StatusCode::NOT_ACCEPTABLE, "PGRST116", "JSON object requested, multiple (or no) rows returned")
        .details(format!("The result contains {rows} rows"))
}

/// The SQLSTATE of a right that is missing.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// `GET /{c}/{id}`
///
/// # Errors
/// 404 without such a row.
pub async fn item(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
    id: &[String],
) -> Result<Reply, Problem> {
    let table = catalog.table(operation.schema(), collection)?;
    let query = pairs(&operation.query, bounds(&config.limits), |_| false)?.query;
    without_pages(&query)?;
    let most = config.limits.write_answer_bytes;
    let mut found = session.last(&sql::item(catalog, table, id, &query, true)?, most).await;
    if !session.is_transaction() && found.as_ref().is_err_and(|problem| problem.code == INSUFFICIENT_PRIVILEGE) {
        // A row's version needs the right to read all of its columns: without it there is no `ETag`.
        found = session.last(&sql::item(catalog, table, id, &query, false)?, most).await;
    }
    let found = found?;
    let Some((text, version)) = found.rows.into_iter().next() else { return Err(no_such(collection)) };
    // The version is the row's: of what is embedded in it, it says nothing.
    let embeds = query.select.iter().any(|item| matches!(item, Item::Embed(_)));
    let tag = version.filter(|_| !embeds).map(|version| format!("\"{version}\""));
    let known = operation.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = match (&tag, known) {
        // A proxy that compresses makes tags weak.
        (Some(tag), Some(known)) => known.split(',').map(str::trim).any(|one| {
            let one = one.strip_prefix("W/").unwrap_or(one);
            one == "*" || one == tag
        }),
        _ => false,
    };
    let mut reply = if unchanged { Reply::new(StatusCode::NOT_MODIFIED) } else { Reply::json(StatusCode::OK, text) };
    reply.rows = 1;
    if let Some(tag) = tag {
        reply.header(header::ETAG, &tag);
    }
    Ok(reply)
}

/// There is no row with this key.
pub(super) fn no_such(collection: &str) -> Problem {
    Problem::missing("SDB108", format!("\"{collection}\" has no document with this key"))
}

/// `GET /{c}/count`, `POST` with the conditions as a JSON tree.
///
/// # Errors
/// Any error of the server.
pub async fn count(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let table = catalog.table(operation.schema(), collection)?;
    let prefer = operation.prefer()?;
    let query = asked(operation, config, operation.method == Method::POST)?;
    let kind = prefer.count.unwrap_or(Count::Exact);
    let exact = sql::count(catalog, table, &query)?;
    let total = match kind {
        Count::Exact => number(session, &exact).await?,
        estimate => counted(session, estimate, &counting(catalog, table, &query, estimate)?, &exact).await?,
    };
    let mut reply = Reply::json(StatusCode::OK, format!("{{\"count\":{total}}}"));
    reply.total = Some(total);
    applied(&mut reply, &prefer);
    Ok(reply)
}

/// `POST /{c}/aggregate`
///
/// # Errors
/// Any error of the server.
pub async fn aggregate(
    session: &mut Session,
    catalog: &Catalog,
    config: &Config,
    operation: &Operation,
    collection: &str,
) -> Result<Reply, Problem> {
    let table = catalog.table(operation.schema(), collection)?;
    let request = request::aggregate(&operation.body, bounds(&config.limits))?;
    let statement = sql::aggregate(catalog, table, &request)?;
    array(session, config, &statement).await
}

/// Rows as an array.
///
/// # Errors
/// Any error of the server.
pub(super) async fn array(session: &mut Session, config: &Config, statement: &Statement) -> Result<Reply, Problem> {
    let found = session.read_last(statement, config.limits.write_answer_bytes).await?;
    let texts: Vec<&str> = found.rows.iter().map(|(text, _)| text.as_str()).collect();
    let mut reply = Reply::json(StatusCode::OK, format!("[{}]", texts.join(",\n ")));
    reply.rows = texts.len() as u64;
    Ok(reply)
}
