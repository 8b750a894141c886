//! Consumer groups as administrators see them: which there are, what they are made of, and that they go.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;
use mainstem::broker::{GroupListing, GroupState, GroupType, MemberDescription};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::metadata::{NO_OPERATIONS, operations, text};

/// The operations on a group that anybody may do: read, delete, describe, describe and alter configs.
pub(crate) const GROUP_OPERATIONS: i32 = operations(&[3, 6, 8, 10, 11]);

const STATES: [GroupState; 6] = [
    GroupState::Empty,
    GroupState::PreparingRebalance,
    GroupState::CompletingRebalance,
    GroupState::Stable,
    GroupState::Assigning,
    GroupState::Reconciling,
];

const TYPES: [GroupType; 2] = [GroupType::Classic, GroupType::Consumer];

/// Those of `all` that a filter names, as Kafka does it: whatever the case, and words that name none are left out; `None`
/// where it names none at all, though it has words.
fn named<T: Copy>(filter: &[StrBytes], all: &[T], name: fn(T) -> &'static str) -> Option<Vec<T>> {
    let is_named = |one: &T| {
        filter
            .iter()
            .any(|word| word.eq_ignore_ascii_case(name(*one)))
    };
    let found: Vec<T> = all.iter().copied().filter(is_named).collect();
    (filter.is_empty() || !found.is_empty()).then_some(found)
}

pub(crate) async fn list(
    client: &Client,
    call: &Call,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let states = named(&request.states_filter, &STATES, GroupState::as_str);
    let types = named(&request.types_filter, &TYPES, GroupType::as_str);
    let (Some(states), Some(types)) = (states, types) else {
        return ListGroupsResponse::default();
    };
    let group = |group: GroupListing| {
        let listed = ListedGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_protocol_type(text(&group.protocol_type));
        let listed = match call.version {
            ..4 => listed,
            _ => listed.with_group_state(text(group.state.as_str())),
        };
        match call.version {
            ..5 => listed,
            _ => listed.with_group_type(text(group.group_type.as_str())),
        }
    };
    match client.broker().list_groups(&client.caller, &states, &types) {
        Ok(groups) => {
            ListGroupsResponse::default().with_groups(groups.into_iter().map(group).collect())
        }
        Err(error) => ListGroupsResponse::default().with_error_code(Refusal::from(error).code()),
    }
}

/// A group that is not there, or speaks the consumer protocol, is Dead, with an error from version 6 on (KIP-1043).
pub(crate) async fn describe(
    client: &Client,
    call: &Call,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let may = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    let describe = |id: &GroupId| {
        let entry = DescribedGroup::default()
            .with_group_id(id.clone())
            .with_authorized_operations(may);
        let group = match client.broker().describe_group(&client.caller, id.as_str()) {
            Ok(group) => group,
            Err(error) => {
                let refusal = Refusal::from(error);
                let entry = entry.with_group_state(text("Dead"));
                if refusal.error == ResponseError::GroupIdNotFound && call.version < 6 {
                    return entry;
                }
                let message = refusal.text().filter(|_| call.version >= 6);
                return entry
                    .with_error_code(refusal.code())
                    .with_error_message(message)
                    .with_authorized_operations(NO_OPERATIONS);
            }
        };
        let member = |member: &MemberDescription| {
            let instance_id = member.instance_id.as_deref().filter(|_| call.version >= 4);
            DescribedGroupMember::default()
                .with_member_id(text(&member.member_id))
                .with_group_instance_id(instance_id.map(text))
                .with_client_id(text(&member.client_id))
                .with_client_host(text(&member.client_host))
                .with_member_metadata(member.metadata.clone())
                .with_member_assignment(member.assignment.clone())
        };
        entry
            .with_group_state(text(group.state.as_str()))
            .with_protocol_type(text(&group.protocol_type))
            .with_protocol_data(text(&group.protocol))
            .with_members(group.members.iter().map(member).collect())
    };
    DescribeGroupsResponse::default().with_groups(request.groups.iter().map(describe).collect())
}

pub(crate) async fn delete(
    client: &Client,
    _call: &Call,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let deleted = client
            .broker()
            .delete_group(&client.caller, id.as_str(), mainstem::now_ms())
            .await;
        let code = deleted.map_or_else(|error| Refusal::from(error).code(), |()| 0);
        results.push(
            DeletableGroupResult::default()
                .with_group_id(id)
                .with_error_code(code),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
