//! Processes that were taken for dead, and commit what they had read: that counts as long as their group takes them for
//! members, and never afterwards.

use mainstem_broker::BrokerError;
use rand::Rng;

use super::commit::{self, Transaction};
use crate::coverage::met;
use crate::world::{After, Client};

/// One of them was refused.
pub const FENCED: &str = "zombies of groups fenced";

/// Has one of them commit now and then.
pub async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.clock.sleep(client.rng.random_range(20..500)).await;
        let zombie = {
            let zombies = &mut client.world.borrow_mut().groups.zombies;
            match zombies.len() {
                0 => continue,
                count => zombies.swap_remove(client.rng.random_range(0..count)),
            }
        };
        client.operation();
        let outcome = match zombie.producer {
            None => {
                let patience_ms = client.rng.random_range(0..400);
                let (group, member) = (zombie.group, &zombie.member);
                commit::send(&client, group, member, &zombie.offsets, patience_ms)
                    .await
                    .map(drop)
            }
            Some(producer) => {
                let number = client.world.borrow_mut().groups.next_transaction();
                let transaction = Transaction {
                    number,
                    group: zombie.group,
                    adds_group: true,
                    producer,
                    member: zombie.member,
                    offsets: zombie.offsets,
                };
                end(&mut client, &transaction).await
            }
        };
        match outcome {
            Ok(()) => {}
            Err(
                BrokerError::UnknownMember { .. }
                | BrokerError::IllegalGeneration { .. }
                | BrokerError::StaleEpoch { .. }
                | BrokerError::FencedInstance { .. }
                | BrokerError::GroupNotFound { .. }
                | BrokerError::RebalanceInProgress { .. }
                | BrokerError::ProducerFenced { .. }
                | BrokerError::InvalidProducerMapping { .. }
                | BrokerError::InvalidTransactionState { .. }
                | BrokerError::ConcurrentTransactions { .. },
            ) => met(FENCED),
            Err(error) => {
                if client.after(&error) == After::Over {
                    return;
                }
            }
        }
    }
}

async fn end(client: &mut Client, transaction: &Transaction) -> Result<(), BrokerError> {
    let number = transaction.commit_offsets(client).await?;
    client.clock.sleep(client.rng.random_range(0..100)).await;
    transaction.end(client, number, true).await.map(drop)
}
