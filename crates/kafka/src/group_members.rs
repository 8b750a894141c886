//! Members of consumer groups: joining, being assigned, being there, leaving (the classic protocol).

use std::future::Future;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use mainstem::broker::{
    BrokerError, GroupMember, JoinGroup, JoinedMember, LeavingMember, Protocol, SyncGroup,
};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::metadata::text;

pub(crate) fn owned(text: &Option<StrBytes>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

/// What waits for a rebalance does so until the client goes away.
async fn while_there<T>(
    client: &Client,
    answer: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::select! {
        answer = answer => answer,
        () = client.ended() => Err(BrokerError::Closed),
    }
}

/// The code of a refusal, as it is from a group's coordinator.
fn code(error: BrokerError) -> i16 {
    match error {
        BrokerError::Closed => ResponseError::CoordinatorNotAvailable.code(),
        error => Refusal::from(error).code(),
    }
}

pub(crate) async fn join(
    client: &Client,
    call: &Call,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        metadata: protocol.metadata.clone(),
    });
    let join = JoinGroup {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        instance_id: owned(&request.group_instance_id),
        client_id: call.client_id.to_string(),
        client_host: client.host(),
        session_timeout_ms: request.session_timeout_ms.into(),
        // Version 0 has one timeout for both.
        rebalance_timeout_ms: if call.version == 0 {
            request.session_timeout_ms.into()
        } else {
            request.rebalance_timeout_ms.into()
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        requires_member_id: call.version >= 4,
        skips_assignment: call.version >= 9,
    };
    let joined = client
        .broker()
        .join_group(&client.caller, join, mainstem::now_ms());
    let refused = |error: BrokerError| {
        let member_id = match &error {
            BrokerError::MemberIdRequired { member_id } => text(member_id),
            _ => request.member_id.clone(),
        };
        JoinGroupResponse::default()
            .with_error_code(code(error))
            .with_member_id(member_id)
            // Null only where the version has it.
            .with_protocol_name((call.version < 7).then(StrBytes::new))
    };
    let joined = match while_there(client, joined).await {
        Ok(joined) => joined,
        Err(error) => return refused(error),
    };
    let member = |member: &JoinedMember| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata.clone())
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type((call.version >= 7).then(|| text(&joined.protocol_type)))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member_id))
        .with_skip_assignment(joined.skip_assignment)
        .with_members(joined.members.iter().map(member).collect())
}

pub(crate) async fn sync(
    client: &Client,
    call: &Call,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    // From version 5 on it says what it takes the group to speak (KIP-559).
    if call.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        let code = ResponseError::InconsistentGroupProtocol.code();
        return SyncGroupResponse::default().with_error_code(code);
    }
    let assignments = request.assignments.iter();
    let sync = SyncGroup {
        member: GroupMember {
            group: request.group_id.to_string(),
            member_id: request.member_id.to_string(),
            instance_id: owned(&request.group_instance_id),
            generation: request.generation_id,
        },
        protocol_type: owned(&request.protocol_type),
        protocol: owned(&request.protocol_name),
        assignments: assignments
            .map(|one| (one.member_id.to_string(), one.assignment.clone()))
            .collect(),
    };
    let synced = client
        .broker()
        .sync_group(&client.caller, sync, mainstem::now_ms());
    match while_there(client, synced).await {
        Ok(synced) => {
            let named = |name: &str| (call.version >= 5).then(|| text(name));
            SyncGroupResponse::default()
                .with_protocol_type(named(&synced.protocol_type))
                .with_protocol_name(named(&synced.protocol))
                .with_assignment(synced.assignment)
        }
        Err(error) => SyncGroupResponse::default().with_error_code(code(error)),
    }
}

pub(crate) async fn heartbeat(
    client: &Client,
    _call: &Call,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let member = GroupMember {
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        instance_id: owned(&request.group_instance_id),
        generation: request.generation_id,
    };
    let beat = client
        .broker()
        .heartbeat(&client.caller, &member, mainstem::now_ms());
    let code = beat.map_or_else(code, |()| 0);
    HeartbeatResponse::default().with_error_code(code)
}

pub(crate) async fn leave(
    client: &Client,
    call: &Call,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let leaving: Vec<LeavingMember> = if call.version < 3 {
        vec![LeavingMember {
            member_id: request.member_id.to_string(),
            instance_id: None,
        }]
    } else {
        let members = request.members.iter();
        members
            .map(|member| LeavingMember {
                member_id: member.member_id.to_string(),
                instance_id: owned(&member.group_instance_id),
            })
            .collect()
    };
    let group = request.group_id.as_str();
    let left = client
        .broker()
        .leave_group(&client.caller, group, &leaving, mainstem::now_ms());
    let response = LeaveGroupResponse::default();
    let outcomes = match left {
        Ok(outcomes) => outcomes,
        Err(error) => return response.with_error_code(code(error)),
    };
    let codes = outcomes
        .into_iter()
        .map(|outcome| outcome.map_or_else(code, |()| 0));
    if call.version < 3 {
        return response.with_error_code(codes.into_iter().next().unwrap_or(0));
    }
    let member = |(member, code): (&LeavingMember, i16)| {
        MemberResponse::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_error_code(code)
    };
    response.with_members(leaving.iter().zip(codes).map(member).collect())
}
