//! What is to be routed where: a pure function of Kubernetes objects and settings.
