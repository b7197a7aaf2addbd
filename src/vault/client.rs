//! The adapter on vaultrs.
