//! gRPC: `servicedb.data.v1.Data`, health and reflection, on the port of REST.
//!
//! Each call is turned into the operation that the same request by REST is, so that authentication, limits, statements,
//! transactions and metrics are one.

mod health;
mod request;
mod service;
mod status;

/// Generated of `proto/servicedb/data/v1/data.proto`.
#[allow(missing_docs, clippy::all, reason = "the .proto file has the documentation")]
pub mod proto {
    tonic::include_proto!("servicedb.data.v1");

    /// The descriptors of the service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{StatusCode, Version};
use tonic::codegen::Service as _;

use self::proto::data_server::DataServer;
use self::service::Service;
use self::status::status;
use crate::problem::Problem;
use crate::serve::App;

/// What the handler shares.
#[derive(Clone)]
struct Shared {
    app: Arc<App>,
    data: DataServer<Service>,
}

/// The services of callers, and those about them.
///
/// # Errors
/// If the descriptors cannot be read.
pub fn router(app: Arc<App>) -> Result<Router, tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(health::report(reporter, Arc::clone(&app)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // The body is limited before it is decoded.
    let data = DataServer::new(Service::new(Arc::clone(&app))).max_decoding_message_size(usize::MAX);
    Ok(Router::new()
        .route("/servicedb.data.v1.Data/{method}", any(handle))
        .with_state(Shared { app, data })
        .route_service("/grpc.health.v1.Health/{method}", health)
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", reflection.build_v1()?))
}

/// Authenticates the caller before anything of the body is kept, and reads the body within its limits.
async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    let Shared { app, mut data } = shared;
    if request.version() != Version::HTTP_2 {
        return Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "SDB120", "gRPC needs HTTP/2").into_response();
    }
    let (mut parts, body) = request.into_parts();
    let received = async {
        let caller = app.auth.caller(&parts.headers).await?;
        Ok::<_, Problem>((caller, app.bodies.receive(body).await?))
    };
    let received = match received.await {
        Ok((caller, received)) => {
            parts.extensions.insert(caller);
            received
        }
        Err(problem) => return status(&problem).into_http::<Body>(),
    };
    match data.call(http::Request::from_parts(parts, Body::from(received.bytes.clone()))).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
