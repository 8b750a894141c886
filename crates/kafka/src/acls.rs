//! Access control lists: there are none, and nobody is asked who they are.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;

fn disabled() -> Refusal {
    Refusal::new(
        ResponseError::SecurityDisabled,
        "access control is not there yet",
    )
}

pub(crate) async fn describe(
    _client: &Client,
    _call: &Call,
    _request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    let refusal = disabled();
    DescribeAclsResponse::default()
        .with_error_code(refusal.code())
        .with_error_message(refusal.text())
}

pub(crate) async fn create(
    _client: &Client,
    _call: &Call,
    request: CreateAclsRequest,
) -> CreateAclsResponse {
    let refusal = disabled();
    let refused = |_| {
        AclCreationResult::default()
            .with_error_code(refusal.code())
            .with_error_message(refusal.text())
    };
    CreateAclsResponse::default().with_results(request.creations.iter().map(refused).collect())
}

pub(crate) async fn delete(
    _client: &Client,
    _call: &Call,
    request: DeleteAclsRequest,
) -> DeleteAclsResponse {
    let refusal = disabled();
    let refused = |_| {
        DeleteAclsFilterResult::default()
            .with_error_code(refusal.code())
            .with_error_message(refusal.text())
    };
    DeleteAclsResponse::default().with_filter_results(request.filters.iter().map(refused).collect())
}
