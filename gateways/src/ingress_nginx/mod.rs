//! ingress-nginx' own controller: nginx with its Lua balancer, which follows the cluster's API by itself.
//!
//! It comes as an image alone. The agent starts it with its published arguments, writes the settings into its ConfigMap, and answers
//! `status` by comparing what the controller wrote (`nginx.conf`) and what it gave to the balancer (`/configuration/backends`) with the
//! objects. Log and annotations are those of [`crate::nginx`], which does the same without that controller.

mod adapter;
mod arguments;
mod config_map;
mod in_force;
mod process;

pub(crate) use adapter::IngressNginx;

#[cfg(test)]
pub(crate) const KIND: crate::GatewayKind = crate::GatewayKind::of(&IngressNginx);
