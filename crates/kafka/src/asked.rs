//! What a request asks for in partitions, topic by topic, and an answer of the same form.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use mainstem::broker::BrokerError;

use crate::topic_ref::partition_number;

/// Topics, their partitions, and what is asked for in each.
pub(crate) struct Asked<T>(pub(crate) Vec<(TopicName, Vec<(i32, T)>)>);

impl<T> Asked<T> {
    /// How many partitions there are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|(_, partitions)| partitions.len()).sum()
    }

    /// Those whose number a partition can have, in the request's order: what the broker is asked for.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (&TopicName, u32, &T)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            let one =
                move |(index, asked)| partition_number(index).ok().map(|at| (topic, at, asked));
            partitions
                .iter()
                .filter_map(move |(index, asked)| one((*index, asked)))
        })
    }

    /// A code for each: the broker's outcomes are those of [`numbered`](Self::numbered); where it refused all, that is
    /// every one's. `code` says which code an error has in this request.
    pub(crate) fn answers<P, A>(
        self,
        outcomes: Result<Vec<Result<(), BrokerError>>, BrokerError>,
        code: impl Fn(&BrokerError) -> ResponseError,
        partition: impl Fn(i32, i16) -> P,
        topic: impl Fn(TopicName, Vec<P>) -> A,
    ) -> Vec<A> {
        let code = |error| code(&error).code();
        let (mut outcomes, all) = match outcomes {
            Ok(outcomes) => (outcomes.into_iter(), 0),
            Err(error) => (Vec::new().into_iter(), code(error)),
        };
        let mut code_of = |index| match partition_number(index) {
            Err(refusal) => refusal.code(),
            Ok(_) => outcomes
                .next()
                .map_or(all, |one| one.map_or_else(&code, |()| 0)),
        };
        let mut answers = Vec::with_capacity(self.0.len());
        for (name, partitions) in self.0 {
            let partitions = partitions.iter();
            let partitions = partitions.map(|(index, _)| partition(*index, code_of(*index)));
            answers.push(topic(name, partitions.collect()));
        }
        answers
    }
}
