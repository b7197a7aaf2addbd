//! Endpoints of Vault that vaultrs lacks: ACL policies by their own path (`sys/policies/acl`),
//! so that the operator's policy needs no right on the older path `sys/policy`.

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde::Deserialize;
use serde_json::json;

/// The path of an ACL policy.
pub(super) fn policy_path(name: &str) -> String {
    format!("sys/policies/acl/{name}")
}

/// An ACL policy as Vault returns it.
#[derive(Deserialize)]
pub(super) struct PolicyText {
    pub policy: String,
}

/// Reads an ACL policy.
pub(super) struct ReadPolicy {
    pub name: String,
}

/// Creates or replaces an ACL policy.
pub(super) struct WritePolicy {
    pub name: String,
    pub hcl: String,
}

/// Deletes an ACL policy.
pub(super) struct DeletePolicy {
    pub name: String,
}

impl Endpoint for ReadPolicy {
    type Response = PolicyText;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        policy_path(&self.name)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

impl Endpoint for WritePolicy {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        policy_path(&self.name)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(json!({ "policy": self.hcl }).to_string().into_bytes()))
    }
}

impl Endpoint for DeletePolicy {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        policy_path(&self.name)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::DELETE
    }
}
