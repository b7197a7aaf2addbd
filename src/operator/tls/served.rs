//! The Secrets with the authority's key (no pod mounts it) and with the pods' certificates: reads
//! them, executes the steps of [`crate::operator::tls::authority`], and reports their state.

use std::str;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use secrecy::ExposeSecret;
use serde_json::json;

use super::authority::{Leaves, Member, Notes, Published, Request, Rest, Served, Situation, State, Step};
use super::certificates::{self, CLIENTS, Pair, Subject};
use crate::api::names::ANNOTATION_CERTIFICATES;
use crate::api::{AuthorityChange, AuthorityPhase, CertificatesStatus};
use crate::contract::certificates::{Authorities, FILES, fingerprint};
use crate::contract::records::Runtime;
use crate::operator::apply::object::{Owner, Ownership};
use crate::operator::apply::secrets::{self, Content, OPAQUE, Wanted};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::pods::DatabasePod;

/// The authority is kept with the data: clients that know it still trust the server after an
/// adoption.
pub const AUTHORITY: Ownership = Ownership::Stamped;
/// Annotation: until when the certificates are valid.
const ANNOTATION_NOT_AFTER: &str = "servicedb.dev/not-after";
/// Annotation of the authority's Secret: the current change, as JSON.
const ANNOTATION_NOTES: &str = "servicedb.dev/authority";
/// The maximum number of steps in a reconcile: more than any change has between two waits.
const STEPS: usize = 12;

/// The keys of the pods' Secret: certificate and key of each.
const LEAVES: [(&str, &str, Subject); 4] = [
    ("server.crt", "server.key", Subject::Server),
    ("replicator.crt", "replicator.key", Subject::Client(CLIENTS[0])),
    ("rewinder.crt", "rewinder.key", Subject::Client(CLIENTS[1])),
    ("patroni.crt", "patroni.key", Subject::Client(CLIENTS[2])),
];

/// The inputs for the certificates.
pub struct Asked<'a> {
    /// The request for a new authority, in annotations.
    pub request: Option<Request>,
    /// The last request that status reports as completed: the Secret that records it may be lost.
    pub answered: Option<String>,
    /// How long clients have to read a new authority.
    pub overlap: SignedDuration,
    /// Whether the database is not to be changed.
    pub paused: bool,
    /// The database pods.
    pub pods: &'a [DatabasePod],
    /// The authorities in the desired state.
    pub recorded: Authorities,
    /// The records that clients read the authorities from.
    pub records: Vec<Readable>,
}

/// A record from which clients read the authorities.
pub struct Readable {
    /// Its path in Vault.
    pub path: String,
    /// The Secret that is a copy of it, if declared.
    pub secret: Option<String>,
    /// Whether it may not exist yet, as that of a client that was just declared: nobody has read it then.
    pub may_be_missing: bool,
}

/// The state of the certificates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Certified {
    /// The authorities for clients.
    pub authorities: Authorities,
    /// For status.
    pub status: CertificatesStatus,
    /// The fingerprint of the pods' Secret.
    pub fingerprint: String,
    /// Why the certificates cannot be renewed, if a person must act.
    pub lost: Option<String>,
    /// When an action is due.
    pub due: Option<Timestamp>,
    /// Whether an event is awaited, besides time.
    pub waits: bool,
}

impl Certified {
    /// Whether a new authority is being published.
    pub fn is_publishing(&self) -> bool {
        self.status.change.as_ref().is_some_and(|change| change.phase == AuthorityPhase::Publishing)
    }
}

/// Creates the authority and the certificates, renews them before they expire, and advances a change
/// of the authority as far as possible.
///
/// # Errors
/// If a Secret belongs to another owner, or the API server refuses.
pub async fn ensure(context: &Context, owner: &Owner, asked: &Asked<'_>) -> Result<Certified, Error> {
    let (client, names) = (&context.client, &owner.names);
    let (ca_secret, tls_secret) = (names.ca_secret(), names.tls_secret());
    let (mut stored, mut served) = tokio::try_join!(
        secrets::read(client, owner, &ca_secret, &AUTHORITY),
        secrets::read(client, owner, &tls_secret, &Ownership::Controlled),
    )?;
    let now = context.now();
    let members: Vec<_> = asked.pods.iter().filter(|pod| !pod.terminating).filter_map(member).collect();
    let mut state = load(stored.as_ref(), served.as_ref(), asked);
    // The published authorities are read only while a new authority is being published.
    let publishing = |state: &State| {
        state.next.is_some() && state.notes.change.as_ref().is_some_and(|change| change.published_at.is_none())
    };
    let published = if publishing(&state) && !asked.paused {
        Some(read_published(context, owner, &asked.records).await)
    } else {
        None
    };
    let situation = Situation {
        now,
        request: asked.request.as_ref(),
        overlap: asked.overlap,
        paused: asked.paused,
        members: &members,
        published: published.as_deref(),
    };
    for _ in 0..STEPS {
        let step = state.next_step(&situation);
        let fresh = match &step {
            Step::Create(_) | Step::Announce(_) => Some(certificates::authority(names, now)?),
            _ => None,
        };
        match &step {
            Step::Rest(rest) => return Ok(describe(owner, stored.is_some(), &state, rest, now)),
            Step::Sign(authorities) => {
                let Some(signer) = &state.signer else { break };
                let content = signed(owner, signer, authorities, now)?;
                served = Some(write_served(context, owner, &content, served.as_ref()).await?);
            }
            Step::Trust(authorities) => {
                let Some(live) = &served else { break };
                let mut content = Content::from([("ca.crt", authorities.to_pem().into())]);
                for key in LEAVES.iter().flat_map(|(certificate, key, _)| [*certificate, *key]) {
                    content.insert(key, secrets::text(live, key).unwrap_or_default());
                }
                served = Some(write_served(context, owner, &content, served.as_ref()).await?);
            }
            step => {
                log_step(step);
                let next = state.clone().after(step, fresh, now);
                stored = Some(write_stored(context, owner, &next, stored.as_ref()).await?);
            }
        }
        state = load(stored.as_ref(), served.as_ref(), asked);
    }
    // The next reconcile continues.
    let rest = Rest { waits_for: Some("the next step".to_owned()), ..Rest::default() };
    Ok(describe(owner, stored.is_some(), &state, &rest, now))
}

/// Changes of the authority are rare and relevant for users.
fn log_step(step: &Step) {
    let what = match step {
        Step::Create(_) => "created the first certificate authority",
        Step::Announce(_) => "created a new certificate authority, to be published beside the present one",
        Step::Introduce(_) => "the certificate authority's Secret has another authority, which is published first",
        Step::Switch => "the new certificate authority signs the certificates from now on",
        Step::Retire => "the former certificate authority is no longer trusted",
        Step::Note(_) | Step::Sign(_) | Step::Trust(_) | Step::Rest(_) => return,
    };
    tracing::info!("{what}");
}

/// Makes the kubelets update the mounted Secret of pods that have not loaded the served
/// certificates, by changing an annotation of the pod. A kubelet updates it within two minutes
/// anyway, so a failed patch is no error. Called last in a reconcile: the patch changes the version
/// of the pods, by which a replacement of one of them would be refused.
pub async fn prompt(context: &Context, owner: &Owner, pods: &[DatabasePod], served: &str) {
    let loaded = |pod: &DatabasePod| pod.report.as_ref().and_then(|report| report.certificates.clone());
    let has_others = |pod: &&DatabasePod| !pod.terminating && loaded(pod).is_some_and(|loaded| loaded != served);
    let lagging: Vec<_> = pods.iter().filter(has_others).collect();
    if lagging.is_empty() || !context.cache.may_prompt(&owner.uid, served) {
        return;
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &owner.names.namespace);
    let asked_at = context.now().to_string();
    for pod in lagging {
        let patch = json!({"metadata": {"uid": pod.uid, "annotations": {ANNOTATION_CERTIFICATES: asked_at}}});
        if let Err(error) = api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            tracing::debug!(pod = pod.name, %error, "failed to prompt the kubelet");
        }
    }
}

/// A running instance. Others read the files when they start.
fn member(pod: &DatabasePod) -> Option<Member> {
    let report = pod.report.as_ref()?;
    Some(Member { name: pod.name.clone(), certificates: report.certificates.clone() })
}

/// The authorities that clients can read. A place that cannot be read counts as outdated.
async fn read_published(context: &Context, owner: &Owner, records: &[Readable]) -> Vec<Published> {
    let mut places = Vec::new();
    for Readable { path, secret, may_be_missing } in records {
        let record = match context.vault.read_kv(path).await {
            Ok(None) if *may_be_missing => continue,
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(%error, path, "the record cannot be read");
                None
            }
        };
        let authorities = record.and_then(|record| {
            let held = Runtime::value_of(&record.data, &owner.names.key_prefix(), "CA").ok()?;
            Some(Authorities::from_pem(held.expose_secret()))
        });
        places.push(Published { place: format!("the Vault record {path}"), authorities });
        if let Some(name) = secret {
            let secret = secrets::read(&context.client, owner, name, &Ownership::Controlled).await.ok().flatten();
            let held = secret.and_then(|secret| secrets::text(&secret, "ca.crt"));
            let authorities = held.map(|held| Authorities::from_pem(held.expose_secret()));
            places.push(Published { place: format!("the Secret {name}"), authorities });
        }
    }
    places
}

/// The content of the Secrets. Damaged content counts as missing.
fn load(stored: Option<&Secret>, served: Option<&Secret>, asked: &Asked<'_>) -> State {
    let recorded = &asked.recorded;
    let bundle = |secret: Option<&Secret>, key: &str| {
        secret
            .map(|secret| readable(secrets::text(secret, key).unwrap_or_default().expose_secret()))
            .unwrap_or_default()
    };
    let in_served = bundle(served, "ca.crt");
    let known = in_served.and(recorded);
    let pair = |certificate: &str, key: &str| pair(stored?, certificate, key, &known);
    let (signer, next) = (pair("ca.crt", "ca.key"), pair("next.crt", "next.key"));
    let noted = stored.and_then(|secret| serde_json::from_str(secret.annotations().get(ANNOTATION_NOTES)?).ok());
    let mut notes: Notes = noted.unwrap_or_default();
    notes.answered = notes.answered.or_else(|| asked.answered.clone());
    let pairs =
        [&signer, &next].into_iter().flatten().fold(Authorities::default(), |all, pair| all.and(&pair.authorities()));
    // An authority whose key is lost is still trusted.
    let others = ["ca.crt", "next.crt", "trusted.crt"]
        .iter()
        .fold(Authorities::default(), |all, key| all.and(&bundle(stored, key)));
    let mut state = State {
        others: others.without(&pairs),
        signer,
        next,
        notes,
        served: Served::default(),
        recorded: recorded.clone(),
    };
    if let Some(served) = served {
        let candidates = state.trusted().and(&known);
        let text = secrets::text(served, "ca.crt").unwrap_or_default();
        state.served = Served {
            blurred: text.expose_secret() != in_served.to_pem(),
            authorities: in_served,
            leaves: leaves(served, &candidates),
            fingerprint: served_fingerprint(served),
        };
    }
    state
}

/// The readable authorities in a text.
fn readable(text: &str) -> Authorities {
    let readable = |authorities: Authorities| {
        let good = authorities.iter().filter(|certificate| certificates::is_authority(certificate));
        Authorities::from_pem(&good.collect::<String>())
    };
    readable(Authorities::from_pem(text))
}

/// A complete pair, or one that can be completed: a key's certificate is searched among the known
/// ones.
fn pair(secret: &Secret, certificate: &str, key: &str, known: &Authorities) -> Option<Pair> {
    let key = secrets::text(secret, key)?;
    let held = readable(secrets::text(secret, certificate).unwrap_or_default().expose_secret());
    let candidates = held.and(known);
    let pairs = candidates.iter().map(|certificate| Pair { certificate: certificate.to_owned(), key: key.clone() });
    pairs.into_iter().find(certificates::belong_together)
}

/// The certificates, if they are complete.
fn leaves(secret: &Secret, candidates: &Authorities) -> Option<Leaves> {
    let mut all = Vec::new();
    for (certificate, key, _) in &LEAVES {
        let certificate = secrets::text(secret, certificate)?.expose_secret().to_owned();
        let pair = Pair { certificate, key: secrets::text(secret, key)? };
        if !certificates::belong_together(&pair) {
            return None;
        }
        all.push(pair.certificate);
    }
    let signed_all =
        |authority: &&str| all.iter().all(|certificate| certificates::is_signed_by(certificate, authority));
    Some(Leaves {
        authority: candidates.iter().find(signed_all).map(str::to_owned),
        not_after: all.iter().filter_map(|certificate| certificates::not_after(certificate)).min()?,
    })
}

fn served_fingerprint(secret: &Secret) -> String {
    let held = |file: &str| secret.data.as_ref().and_then(|data| data.get(file)).map_or(&[][..], |bytes| &bytes.0[..]);
    fingerprint(FILES.map(held))
}

/// Certificates signed by an authority.
fn signed(owner: &Owner, signer: &Pair, authorities: &Authorities, now: Timestamp) -> Result<Content, Error> {
    let mut content = Content::from([("ca.crt", authorities.to_pem().into())]);
    for (certificate, key, subject) in &LEAVES {
        let pair = certificates::leaf(&owner.names, subject, signer, now)?;
        content.insert(certificate, pair.certificate.into());
        content.insert(key, pair.key);
    }
    Ok(content)
}

async fn write_served(
    context: &Context,
    owner: &Owner,
    content: &Content,
    live: Option<&Secret>,
) -> Result<Secret, Error> {
    let not_after = content.get("server.crt").and_then(|server| certificates::not_after(server.expose_secret()));
    let annotations: Vec<_> = not_after.map(|end| (ANNOTATION_NOT_AFTER, end.to_string())).into_iter().collect();
    let wanted = Wanted {
        name: &owner.names.tls_secret(),
        ownership: &Ownership::Controlled,
        kind: OPAQUE,
        content,
        annotations: &annotations,
        exact: false,
    };
    secrets::write(&context.client, owner, &wanted, live).await
}

async fn write_stored(context: &Context, owner: &Owner, state: &State, live: Option<&Secret>) -> Result<Secret, Error> {
    let mut content = Content::new();
    for (pair, certificate, key) in [(&state.signer, "ca.crt", "ca.key"), (&state.next, "next.crt", "next.key")] {
        if let Some(pair) = pair {
            content.insert(certificate, pair.certificate.clone().into());
            content.insert(key, pair.key.clone());
        }
    }
    if !state.others.is_empty() {
        content.insert("trusted.crt", state.others.to_pem().into());
    }
    let noted = live.is_some_and(|live| live.annotations().contains_key(ANNOTATION_NOTES));
    let notes = (noted || state.notes != Notes::default()).then(|| serde_json::to_string(&state.notes)).transpose()?;
    let annotations: Vec<_> = notes.map(|notes| (ANNOTATION_NOTES, notes)).into_iter().collect();
    let wanted = Wanted {
        name: &owner.names.ca_secret(),
        ownership: &AUTHORITY,
        kind: OPAQUE,
        content: &content,
        annotations: &annotations,
        exact: true,
    };
    secrets::write(&context.client, owner, &wanted, live).await
}

/// The state when no action is due.
fn describe(owner: &Owner, is_there: bool, state: &State, rest: &Rest, now: Timestamp) -> Certified {
    let names = &owner.names;
    let not_after = state.served.leaves.as_ref().map(|leaves| leaves.not_after);
    let change = state.notes.change.as_ref().map(|change| {
        let (phase, message) = match (&state.next, change.published_at) {
            (Some(_), None) => {
                (AuthorityPhase::Publishing, "the new authority is published beside the present one".to_owned())
            }
            (Some(_), Some(_)) => (
                AuthorityPhase::Announced,
                "clients have time to read the new authority; the present one still signs".to_owned(),
            ),
            (None, _) => {
                (AuthorityPhase::Signing, "the new authority signs; the former one is still trusted".to_owned())
            }
        };
        let message = match &rest.waits_for {
            Some(waits_for) => format!("{message}; waiting for {waits_for}"),
            None => message,
        };
        AuthorityChange {
            phase,
            request: change.request.clone(),
            started_at: time(change.begun_at),
            next_step_at: rest.due.filter(|_| rest.waits_for.is_none()).map(time),
            message,
        }
    });
    let lost = (rest.lost && change.is_none()).then(|| {
        let problem = if is_there { "has no key that matches its certificate" } else { "is missing" };
        let end = not_after.map(|end| end.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
        let due = rest.due.unwrap_or(now).strftime("%Y-%m-%d");
        format!(
            "the Secret {secret} with the certificate authority {problem}: the certificates are valid until {end}, and cannot \
             be renewed. Restore the Secret, or replace the authority without an outage: kubectl \
             servicedb renew-authority {name} -n {namespace}. From {due} on it is replaced automatically",
            secret = names.ca_secret(),
            name = names.name,
            namespace = names.namespace,
        )
    });
    // If the pods' Secret is missing, clients can read the new authority before it is recreated.
    let authorities = if lost.is_some() {
        state.known().and(&state.others)
    } else if state.served.authorities.is_empty() {
        state.trusted()
    } else {
        state.served.authorities.clone()
    };
    Certified {
        authorities,
        status: CertificatesStatus {
            not_after: not_after.map(time),
            authority_not_after: state
                .signer
                .as_ref()
                .and_then(|pair| certificates::not_after(&pair.certificate))
                .map(time),
            change,
            renew_request: state.notes.answered.clone(),
        },
        fingerprint: state.served.fingerprint.clone(),
        lost,
        due: rest.due,
        waits: rest.waits_for.is_some(),
    }
}

fn time(at: Timestamp) -> Time {
    Time(crate::contract::time::seconds(at))
}
