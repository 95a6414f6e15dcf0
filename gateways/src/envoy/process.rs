use std::path::PathBuf;

use async_trait::async_trait;

use crate::{
    agent::{ApplyError, Binary, Files, Gateway, GatewayError},
    model::Model,
};

#[derive(Debug)]
pub(crate) struct EnvoyGateway {}

impl EnvoyGateway {
    pub fn new(_binary: Binary, _state: PathBuf, _http_port: u16, _https_port: u16, _workers: u32) -> Self {
        Self {}
    }
}

#[async_trait]
impl Gateway for EnvoyGateway {
    fn render(&self, _model: &Model) -> Files {
        Files::new()
    }
    async fn apply(&mut self, _model: &Model, _files: &Files) -> Result<(), ApplyError> {
        Ok(())
    }
    async fn ended(&mut self) -> GatewayError {
        std::future::pending().await
    }
    async fn quit(&mut self) {}
}
