//! The part of the Container Runtime Interface that kubelet needs to wire a pod: package `runtime.v1` of
//! k8s.io/cri-api, `pkg/apis/runtime/v1/api.proto`, whose field numbers are here. Fields that nobody sets are left out:
//! protobuf does not mind, and no protocol compiler is needed to build the tests.

use std::collections::HashMap;

use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use tests::sandbox::wait_for;

use crate::containerd::SOCKET;
use crate::node::IMAGE;

/// A pod, as kubelet describes it.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(string, tag = "3")]
    pub log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub port_mappings: Vec<PortMapping>,
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct PortMapping {
    /// 0 is TCP, 1 is UDP.
    #[prost(int32, tag = "1")]
    pub protocol: i32,
    #[prost(int32, tag = "2")]
    pub container_port: i32,
    #[prost(int32, tag = "3")]
    pub host_port: i32,
    #[prost(string, tag = "4")]
    pub host_ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

/// RunPodSandboxResponse, StopPodSandboxRequest and RemovePodSandboxRequest: an id and nothing else.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

/// ImageSpec, and Image, whose first field is the id.
#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    name: String,
}

/// ImageStatusRequest and ImageStatusResponse.
#[derive(Clone, PartialEq, Message)]
struct ImageStatus {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// What kubelet reports of a pod: its addresses, the first one first, and the process that holds its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    pub addresses: Vec<String>,
    pub pid: String,
}

/// A connection to the runtime. It may be used from many threads.
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects when it is needed, and again after the runtime was restarted.
    pub fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let socket = tower::service_fn(|_: Uri| async {
            UnixStream::connect(SOCKET).await.map(TokioIo::new) // the address of the endpoint means nothing
        });
        let channel =
            runtime.block_on(async { Endpoint::from_static("http://containerd").connect_with_connector_lazy(socket) });
        Self { runtime, channel }
    }

    /// RunPodSandbox; the id.
    pub fn run(&self, config: &PodSandboxConfig) -> Result<String, Status> {
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        self.call::<_, PodSandboxId>("RunPodSandbox", request).map(|made| made.pod_sandbox_id)
    }

    /// StopPodSandbox.
    pub fn stop(&self, id: &str) -> Result<(), Status> {
        self.call::<_, Empty>("StopPodSandbox", PodSandboxId { pod_sandbox_id: id.to_owned() }).map(|_| ())
    }

    /// RemovePodSandbox.
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        self.call::<_, Empty>("RemovePodSandbox", PodSandboxId { pod_sandbox_id: id.to_owned() }).map(|_| ())
    }

    /// PodSandboxStatus.
    pub fn pod(&self, id: &str) -> PodStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", request).unwrap();
        let network = answer.status.and_then(|status| status.network).unwrap_or_default();
        let additional = network.additional_ips.into_iter().map(|address| address.ip);
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        PodStatus { addresses: [network.ip].into_iter().chain(additional).collect(), pid: info["pid"].to_string() }
    }

    /// Waits until the image is known, which another client has brought, and Status says that the network is ready.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        wait_for("the image of pods", || {
            let question = ImageStatus { image: Some(Image { name: IMAGE.to_owned() }) };
            let answer: ImageStatus = self.ask("ImageService", "ImageStatus", question).map_err(|e| e.to_string())?;
            answer.image.map(|_| ()).ok_or("it is unknown".to_owned())
        });
        wait_for("the network of the node", || {
            let answer: StatusResponse = self.call("Status", StatusRequest {}).map_err(|e| e.to_string())?;
            let conditions = answer.status.unwrap_or_default().conditions;
            let network = conditions.into_iter().find(|condition| condition.kind == "NetworkReady").unwrap();
            if network.status { Ok(()) } else { Err(network.message) }
        });
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask("RuntimeService", method, request)
    }

    fn ask<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let uri: Uri = format!("/runtime.v1.{service}/{method}").parse().unwrap();
        let path = uri.into_parts().path_and_query.unwrap();
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(request), path, codec).await.map(tonic::Response::into_inner)
        })
    }
}
