//! The status of the data gateway.

use super::findings::Findings;
use crate::api::{GatewaySpec, GatewayStatus};
use crate::contract::report::Report;
use crate::operator::migrations::progress::Progress;

/// How many collections a message names.
const NAMED: usize = 5;

/// The status; the previous one if the gateway was not read.
pub fn status(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: Option<GatewayStatus>,
) -> Option<GatewayStatus> {
    let before = previous.as_ref().and_then(|previous| previous.message.clone());
    let status = match &findings.gateway {
        Some(gateway) => gateway.status.clone(),
        None => previous,
    };
    let spec = findings.resource.spec.gateway.as_ref();
    let is_final = matches!(findings.progress, Some(Progress::NotDeclared | Progress::Applied));
    let message = spec.and_then(|spec| uncached(spec, report, is_final, before));
    status.map(|status| GatewayStatus { message, ..status })
}

/// Which collections of the cache do not exist, and what to do. `is_final` is whether no declared migration could still create
/// them, `before` the previous message.
fn uncached(spec: &GatewaySpec, report: Option<&Report>, is_final: bool, before: Option<String>) -> Option<String> {
    let cache = spec.cache.as_ref()?;
    // Unknown during a change of the primary, and from an agent that has just started.
    let Some(found) = report.and_then(|report| report.uncached.as_ref()) else { return before };
    // The agent may not have seen the present declaration yet.
    let missing: Vec<&str> = found.iter().filter(|name| cache.collections.contains(name)).map(String::as_str).collect();
    if !is_final {
        return before.filter(|_| !missing.is_empty());
    }
    let named = missing.get(..NAMED).unwrap_or(&missing).join(", ");
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!missing.is_empty()).then(|| {
        format!(
            "spec.gateway.cache names collections that do not exist in the exposed schemas ({}), so reads of them are not \
             cached: {named}{more}. Create them, or correct the names: TABLE in the first schema, SCHEMA.TABLE in another",
            spec.schemas.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GatewayCache;

    fn reported(uncached: Option<&[&str]>) -> Report {
        let uncached = uncached.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Report { uncached, ..Report::starting("uid".to_owned(), "2026-11-29T12:00:00Z".parse().expect("a time")) }
    }

    #[test]
    fn a_cached_collection_that_does_not_exist_is_named_until_it_does() {
        let collections = ["films", "shop.orders"].map(str::to_owned).to_vec();
        let cache = GatewayCache { collections, megabytes: 8 };
        let spec = GatewaySpec { cache: Some(cache), ..GatewaySpec::default() };
        let told = |uncached: Option<&[&str]>, before: Option<String>| {
            super::uncached(&spec, Some(&reported(uncached)), true, before)
        };
        let message = told(Some(&["shop.orders", "gone"]), None).expect("a message");
        assert!(
            message.contains("exposed schemas (public)") && message.contains("not cached: shop.orders. "),
            "{message}"
        );
        assert_eq!(told(None, Some(message.clone())), Some(message.clone()), "an agent that has just started");
        assert_eq!(super::uncached(&spec, None, true, Some(message.clone())), Some(message.clone()), "no primary");
        assert_eq!(told(Some(&[]), Some(message.clone())), None);
        let none = GatewaySpec { cache: None, ..spec.clone() };
        assert_eq!(super::uncached(&none, Some(&reported(None)), true, Some(message)), None, "no longer declared");
    }

    #[test]
    fn a_collection_that_a_migration_may_still_create_is_not_named() {
        let cache = GatewayCache { collections: vec!["films".to_owned()], megabytes: 8 };
        let spec = GatewaySpec { cache: Some(cache), ..GatewaySpec::default() };
        let told = |uncached: &[&str], before: Option<&str>| {
            super::uncached(&spec, Some(&reported(Some(uncached))), false, before.map(str::to_owned))
        };
        assert_eq!(told(&["films"], None), None);
        assert_eq!(told(&["films"], Some("films")).as_deref(), Some("films"), "it was named before");
        assert_eq!(told(&[], Some("films")), None, "it was created");
    }
}
