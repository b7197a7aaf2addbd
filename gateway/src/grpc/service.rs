//! `servicedb.data.v1.Data`.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use http::{Method, header};
use prost_types::Duration;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};

use super::proto::data_server::Data;
use super::proto::{
    BatchCreateDocumentsRequest, BatchCreateDocumentsResponse, BeginTransactionRequest, CommitTransactionRequest,
    CountDocumentsRequest, CountDocumentsResponse, CreateDocumentRequest, DeleteDocumentRequest, Document,
    GetDocumentRequest, Isolation, ListDocumentsRequest, ListDocumentsResponse, RollbackTransactionRequest,
    StreamDocumentsRequest, Transaction, UpdateDocumentRequest,
};
use super::request::{Asked, Call, array, counting, document, names, resolution, unknown};
use super::status::status;
use crate::database::{Answer, Caller};
use crate::problem::Problem;
use crate::serve::{App, NEXT_PAGE_TOKEN, Operation, READ_AFTER, READ_REPLICA, REPLAYED, Reply, Target, execute};

/// See the module.
#[derive(Clone)]
pub(super) struct Service {
    app: Arc<App>,
}

/// Documents as they arrive.
type Documents = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

impl Service {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn run(&self, caller: &Caller, operation: &Operation) -> Result<(Reply, Option<Answer>), Problem> {
        // Large: it has the futures of all operations.
        Box::pin(execute(&self.app, caller, operation)).await
    }

    /// Runs an operation whose answer is whole.
    async fn whole(&self, caller: &Caller, call: Call) -> Result<Reply, Problem> {
        let (mut reply, answer) = self.run(caller, &call.operation()).await?;
        if let Some(answer) = answer {
            reply.body = self.collected(answer).await?;
        }
        Ok(reply)
    }

    async fn collected(&self, answer: Answer) -> Result<Bytes, Problem> {
        let most = self.app.config.limits.write_answer_bytes;
        let mut whole = BytesMut::new();
        let mut pieces = std::pin::pin!(answer.pieces());
        while let Some(piece) = pieces.next().await {
            whole.extend_from_slice(&piece?.bytes);
            if whole.len() > most {
                return Err(Problem::request("SDB106", format!("the answer is larger than {most} bytes"))
                    .hint("use StreamDocuments, or ask for fewer rows or columns"));
            }
        }
        Ok(whole.freeze())
    }

    async fn get(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: GetDocumentRequest,
    ) -> Result<Response<Document>, Problem> {
        let call = Call::new(Method::GET, Target::Item(request.collection, request.key)).asked(asked);
        let call = call.pair("select", request.select).within(&request.transaction)?;
        self.whole(caller, call).await.map(|reply| marked(reply, one))
    }

    async fn list(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: ListDocumentsRequest,
    ) -> Result<Response<ListDocumentsResponse>, Problem> {
        let call = rows(request.collection, request.query).prefer(counting(request.count)?).asked(asked);
        let call = call.page(request.page_size, &request.page_token)?.within(&request.transaction)?;
        let reply = self.whole(caller, call).await?;
        let next = reply.headers.get(NEXT_PAGE_TOKEN).and_then(|token| token.to_str().ok());
        let next_page_token = next.unwrap_or_default().to_owned();
        let documents = members(&reply.body)?;
        Ok(marked(reply, |reply| ListDocumentsResponse { documents, total_size: reply.total, next_page_token }))
    }

    async fn stream(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: StreamDocumentsRequest,
    ) -> Result<Response<Documents>, Problem> {
        let call = rows(request.collection, request.query).asked(asked);
        let mut operation = call.within(&request.transaction)?.operation();
        operation.separate = request.transaction.is_empty();
        let (reply, answer) = self.run(caller, &operation).await?;
        let documents: Documents = match answer {
            Some(answer) => {
                let pieces = answer.pieces().map_ok(|piece| futures::stream::iter(piece.rows().map(Ok)));
                let rows = pieces.try_flatten();
                Box::pin(rows.map(|row: Result<Bytes, Problem>| {
                    row.map(|json| Document { json, etag: String::new() }).map_err(|problem| status(&problem))
                }))
            }
            None => Box::pin(futures::stream::iter(members(&reply.body)?.into_iter().map(Ok))),
        };
        Ok(marked(reply, |_| documents))
    }

    async fn count(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: CountDocumentsRequest,
    ) -> Result<Response<CountDocumentsResponse>, Problem> {
        let target = Target::Count(request.collection);
        let call = Call::query(request.query, target.clone(), target).prefer(counting(request.mode)?).asked(asked);
        let reply = self.whole(caller, call.within(&request.transaction)?).await?;
        Ok(marked(reply, |reply| CountDocumentsResponse { count: reply.total.unwrap_or(0) }))
    }

    async fn create(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: CreateDocumentRequest,
    ) -> Result<Response<Document>, Problem> {
        let call = Call::new(Method::POST, Target::Collection(request.collection)).body(document(request.document)?);
        let call = call.singular().returning(request.omit_document).pair("select", request.select).asked(asked);
        self.whole(caller, call.within(&request.transaction)?).await.map(|reply| marked(reply, one))
    }

    async fn create_batch(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: BatchCreateDocumentsRequest,
    ) -> Result<Response<BatchCreateDocumentsResponse>, Problem> {
        let call = Call::new(Method::POST, Target::Collection(request.collection)).body(array(&request.documents)?);
        let call = call
            .returning(request.omit_documents)
            .prefer(request.fill_defaults.then_some("missing=default"))
            .prefer(resolution(request.conflict)?)
            .pair("on_conflict", names(&request.conflict_columns))
            .pair("select", request.select)
            .asked(asked);
        let reply = self.whole(caller, call.within(&request.transaction)?).await?;
        let documents = if request.omit_documents { Vec::new() } else { members(&reply.body)? };
        Ok(marked(reply, |reply| BatchCreateDocumentsResponse { documents, count: reply.rows }))
    }

    async fn update(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: UpdateDocumentRequest,
    ) -> Result<Response<Document>, Problem> {
        let call = Call::new(Method::PATCH, Target::Item(request.collection, request.key));
        let call = call.body(document(request.document)?).version(&request.etag)?.returning(request.omit_document);
        let call = call.pair("select", request.select).within(&request.transaction)?;
        self.whole(caller, call.asked(asked)).await.map(|reply| marked(reply, one))
    }

    async fn delete(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: DeleteDocumentRequest,
    ) -> Result<Response<()>, Problem> {
        let call = Call::new(Method::DELETE, Target::Item(request.collection, request.key));
        let call = call.version(&request.etag)?.within(&request.transaction)?.asked(asked);
        self.whole(caller, call).await.map(|reply| marked(reply, drop))
    }

    async fn begin(
        &self,
        caller: &Caller,
        asked: &Asked,
        request: &BeginTransactionRequest,
    ) -> Result<Transaction, Problem> {
        let isolation = match Isolation::try_from(request.isolation).map_err(|_| unknown("isolation"))? {
            Isolation::Unspecified | Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        };
        let reply = self.transaction(caller, asked, &json!({"begin": true, "isolation": isolation})).await?;
        let begun: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let seconds = |name: &str| begun[name].as_i64().map(|seconds| Duration { seconds, nanos: 0 });
        Ok(Transaction {
            id: begun["txn_id"].as_str().unwrap_or_default().to_owned(),
            idle_timeout: seconds("idle_seconds"),
            total_timeout: seconds("total_seconds"),
        })
    }

    async fn transaction(&self, caller: &Caller, asked: &Asked, body: &Value) -> Result<Reply, Problem> {
        let call = Call::new(Method::POST, Target::Transaction).body(Bytes::from(body.to_string()));
        self.whole(caller, call.asked(asked)).await
    }
}

/// The rows that a query names.
fn rows(collection: String, query: Option<super::proto::Query>) -> Call {
    Call::query(query, Target::Collection(collection.clone()), Target::Query(collection))
}

/// An answer about one document.
fn one(reply: Reply) -> Document {
    let etag = reply.headers.get(header::ETAG).and_then(|value| value.to_str().ok());
    Document { etag: etag.unwrap_or_default().to_owned(), json: reply.body }
}

/// A message of this answer. Its metadata say whether it was sent before, whether a replica gave it, and from where on a
/// replica has what it wrote.
fn marked<T>(reply: Reply, message: impl FnOnce(Reply) -> T) -> Response<T> {
    let text = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    let is_replayed = text(REPLAYED).is_some();
    let of_replica = text("preference-applied").is_some_and(|applied| applied.contains(READ_REPLICA));
    let position: Option<MetadataValue<Ascii>> = text(READ_AFTER).and_then(|position| position.parse().ok());
    let mut response = Response::new(message(reply));
    if is_replayed {
        response.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    }
    if of_replica {
        response.metadata_mut().insert("preference-applied", MetadataValue::from_static(READ_REPLICA));
    }
    if let Some(position) = position {
        response.metadata_mut().insert(READ_AFTER, position);
    }
    response
}

/// The members of an array, each as it is.
fn members(body: &Bytes) -> Result<Vec<Document>, Problem> {
    let members: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| {
        Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "SDB903", "the database's answer is no array")
    })?;
    let document = |member: &&RawValue| Document { json: body.slice_ref(member.get().as_bytes()), etag: String::new() };
    Ok(members.iter().map(document).collect())
}

/// The caller, whom the handler has put there, what the metadata ask for, and the message.
fn parts<T>(request: Request<T>) -> Result<(Caller, Asked, T), Status> {
    let (metadata, mut extensions, message) = request.into_parts();
    let caller = extensions.remove::<Caller>().ok_or_else(|| Status::unauthenticated("no caller"))?;
    let asked = Asked::read(&metadata.into_headers()).map_err(|problem| status(&problem))?;
    Ok((caller, asked, message))
}

fn answer<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| status(&problem))
}

#[tonic::async_trait]
impl Data for Service {
    type StreamDocumentsStream = Documents;

    async fn get_document(&self, request: Request<GetDocumentRequest>) -> Result<Response<Document>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.get(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.list(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn stream_documents(&self, request: Request<StreamDocumentsRequest>) -> Result<Response<Documents>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.stream(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn count_documents(
        &self,
        request: Request<CountDocumentsRequest>,
    ) -> Result<Response<CountDocumentsResponse>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.count(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn create_document(&self, request: Request<CreateDocumentRequest>) -> Result<Response<Document>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.create(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn batch_create_documents(
        &self,
        request: Request<BatchCreateDocumentsRequest>,
    ) -> Result<Response<BatchCreateDocumentsResponse>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.create_batch(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn update_document(&self, request: Request<UpdateDocumentRequest>) -> Result<Response<Document>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.update(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn delete_document(&self, request: Request<DeleteDocumentRequest>) -> Result<Response<()>, Status> {
        let (caller, asked, message) = parts(request)?;
        self.delete(&caller, &asked, message).await.map_err(|problem| status(&problem))
    }

    async fn begin_transaction(
        &self,
        request: Request<BeginTransactionRequest>,
    ) -> Result<Response<Transaction>, Status> {
        let (caller, asked, message) = parts(request)?;
        answer(self.begin(&caller, &asked, &message).await)
    }

    async fn commit_transaction(&self, request: Request<CommitTransactionRequest>) -> Result<Response<()>, Status> {
        let (caller, asked, message) = parts(request)?;
        let reply = self.transaction(&caller, &asked, &json!({"commit": message.transaction})).await;
        reply.map(|reply| marked(reply, drop)).map_err(|problem| status(&problem))
    }

    async fn rollback_transaction(&self, request: Request<RollbackTransactionRequest>) -> Result<Response<()>, Status> {
        let (caller, asked, message) = parts(request)?;
        answer(self.transaction(&caller, &asked, &json!({"rollback": message.transaction})).await.map(drop))
    }
}
