//! A cluster that something else keeps running: looked into, never taken away.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::interface::{ClusterHandle, ProviderError};

#[derive(Clone, Debug)]
pub struct Attached {
    pub kubeconfig: PathBuf,
    /// As [`ClusterHandle::mark`]; only of clusters that others work in.
    pub mark: Option<String>,
}

#[async_trait]
impl ClusterHandle for Attached {
    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    fn is_shared(&self) -> bool {
        self.mark.is_some()
    }

    async fn delete(self: Box<Self>) -> Result<(), ProviderError> {
        Ok(())
    }
}
