//! Problems as `google.rpc.Status` with details.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::problem::{Problem, cut};

/// The domain of the reasons.
const DOMAIN: &str = "servicedb.dev";
/// The longest text of a status, and the most faults in it: all of it is one header, of which clients take 8 KiB.
const LONGEST: usize = 500;
/// See [`LONGEST`].
const MOST: usize = 10;

/// A problem as a status.
pub(super) fn status(problem: &Problem) -> Status {
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::from([("code".to_owned(), problem.code.clone())]);
    for (name, text) in [("details", &problem.details), ("hint", &problem.hint)] {
        if let Some(text) = text {
            metadata.insert(name.to_owned(), cut(text, LONGEST));
        }
    }
    // A reason begins with a letter.
    let sqlstate = problem.code.len() == 5;
    let reason = if sqlstate { format!("SQLSTATE_{}", problem.code) } else { problem.code.clone() };
    details.set_error_info(reason, DOMAIN, metadata);
    for fault in problem.faults.iter().take(MOST) {
        details.add_bad_request_violation(cut(&fault.pointer, LONGEST / MOST), cut(&fault.message, LONGEST / MOST * 2));
    }
    if let Some(seconds) = problem.retry_after {
        details.set_retry_info(Some(Duration::from_secs(seconds)));
    }
    Status::with_error_details(code(problem), cut(&problem.message, LONGEST), details)
}

fn code(problem: &Problem) -> Code {
    match (problem.code.as_str(), problem.status.as_u16()) {
        // Whether a write was carried out is not known: nobody repeats it unasked.
        ("08006", _) => Code::Unknown,
        ("23505", _) => Code::AlreadyExists,
        // Carried out, without an answer that is left.
        ("SDB124" | "SDB408", _) => Code::AlreadyExists,
        ("23503" | "23P01", _) => Code::FailedPrecondition,
        (_, 401) => Code::Unauthenticated,
        (_, 403) => Code::PermissionDenied,
        (_, 404) => Code::NotFound,
        (_, 405 | 406) => Code::FailedPrecondition,
        (_, 408 | 504) => Code::DeadlineExceeded,
        (_, 409 | 412) => Code::Aborted,
        (_, 413 | 429) => Code::ResourceExhausted,
        (_, 416) => Code::OutOfRange,
        (_, 503) => Code::Unavailable,
        (_, 300..=499) => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::problem::Fault;

    #[test]
    fn a_status_has_the_problems_code_and_faults_and_stays_small() {
        let faults = (0..100).map(|place| Fault { pointer: format!("/{place}"), message: "é".repeat(5_000) });
        let mut problem = Problem::invalid(faults.collect());
        problem.message = "é".repeat(10_000);
        let status = status(&problem);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("SDB100"));
        assert_eq!(details.bad_request().map(|request| request.field_violations[1].field.as_str()), Some("/1"));
        // Of its four thirds in base64, and of the message with three bytes for one.
        assert!(status.details().len() * 4 / 3 + status.message().len() * 3 < 8_000, "{}", status.details().len());
    }

    #[test]
    fn codes() {
        for (state, status, wanted) in [
            ("23505", StatusCode::CONFLICT, Code::AlreadyExists),
            ("40001", StatusCode::CONFLICT, Code::Aborted),
            ("SDB107", StatusCode::PRECONDITION_FAILED, Code::Aborted),
            ("SDB410", StatusCode::CONFLICT, Code::Aborted),
            ("08001", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            ("08006", StatusCode::SERVICE_UNAVAILABLE, Code::Unknown),
            ("SDB408", StatusCode::GONE, Code::AlreadyExists),
            ("SDB409", StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            ("PGRST301", StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            ("XX000", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        ] {
            assert_eq!(code(&Problem::new(status, state, "")), wanted, "{state}");
        }
        let details = super::status(&Problem::new(StatusCode::CONFLICT, "23505", "")).get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.clone()), Some("SQLSTATE_23505".to_owned()));
    }
}
