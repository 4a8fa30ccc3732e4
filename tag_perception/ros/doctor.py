"""Why does nothing come? Which publisher, which QoS policy, and the argument that fixes it."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

IMAGES = {'raw': 'sensor_msgs/msg/Image', 'compressed': 'sensor_msgs/msg/CompressedImage'}
"""What a camera sends, by image_transport."""
SUFFIX = {'raw': '', 'compressed': '/compressed'}
"""What image_transport adds to the name of the topic."""


@dataclass(frozen=True)
class Subscribed:
    """One of our subscriptions, as far as its silence can be explained."""

    topic: str
    """Fully qualified."""
    kind: str
    """Its type, e.g. sensor_msgs/msg/Image."""
    qos: QoSProfile
    argument: str
    """Argument of the launch files that names the topic: image or camera_info."""
    camera: str = ''
    """Which of several cameras."""

    def instead(self, topic: str) -> str:
        """How to subscribe to another topic."""
        if self.camera:
            return f'remap {self.camera}/{self.argument} to {topic}'
        return f'launch with {self.argument}:={topic}'


def explain_silence(node: Node, ours: Subscribed) -> str:
    """What is known about the publishers of a topic on which nothing arrives."""
    publishers = node.get_publishers_info_by_topic(ours.topic)
    if not publishers:
        return _explain_absence(node, ours)
    for publisher in publishers:
        name = endpoint_name(publisher)
        if publisher.topic_type != ours.kind:
            return f'publisher {name} sends {publisher.topic_type} there, not {ours.kind}'
        policy = mismatch(publisher.qos_profile, ours.qos)
        if policy == 'reliability':
            return (
                f'publisher {name} offers reliability best_effort, this node asks for reliable: '
                f'launch with {ours.argument}_reliability:=best_effort, or set '
                f'qos_overrides.{ours.topic}.subscription.reliability:=best_effort'
            )
    names = ', '.join(sorted({endpoint_name(publisher) for publisher in publishers}))
    matching = f'publisher {names} matches, but nothing arrives: it sends nothing'
    if ours.argument != 'image':
        return matching
    return f'{matching}, or its transport loses what is large (README: "lost frames")'


def explain_subscribers(node: Node, topic: str, offered: QoSProfile) -> list[str]:
    """One sentence for every subscriber of our `topic` that gets nothing because of QoS."""
    sentences = []
    for subscriber in node.get_subscriptions_info_by_topic(topic):
        policy = mismatch(offered, subscriber.qos_profile)
        name = endpoint_name(subscriber)
        if policy == 'reliability':
            sentences.append(
                f'subscriber {name} of {topic} asks for reliability reliable, this node offers '
                f'best_effort: set qos_overrides.{topic}.publisher.reliability:=reliable'
            )
        elif policy == 'durability':
            sentences.append(
                f'subscriber {name} of {topic} asks for durability transient_local, this node '
                'offers volatile: subscribe with volatile'
            )
    return sentences


def mismatch(offered: QoSProfile, asked: QoSProfile) -> str | None:
    """The policy that keeps a publisher and a subscriber apart; of those that occur with us."""
    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    if (offered.reliability, asked.reliability) == (best_effort, reliable):
        return 'reliability'
    volatile, latched = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
    if (offered.durability, asked.durability) == (volatile, latched):
        return 'durability'
    return None


def endpoint_name(endpoint: TopicEndpointInfo) -> str:
    """/namespace/node of a publisher or subscriber."""
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _explain_absence(node: Node, ours: Subscribed) -> str:
    """There is no publisher; perhaps there is one next door, or one of the other transport."""
    there = {
        topic: kinds for topic, kinds in node.get_topic_names_and_types()
        if node.count_publishers(topic)
    }  # fmt: skip
    plain = ours.topic.removesuffix('/compressed')
    own, other = ('raw', 'compressed') if plain == ours.topic else ('compressed', 'raw')
    wanted = {own: ours.kind}
    if ours.argument == 'image':
        beside = f'{plain}{SUFFIX[other]}'
        if beside in there:
            return f'no publisher, but one of {beside}: launch with image_transport:={other}'
        wanted[other] = IMAGES[other]
    outputs = f'{node.get_fully_qualified_name()}/'
    heard = {subscription.topic_name for subscription in node.subscriptions}
    for transport, kind in wanted.items():
        near = [
            topic for topic, kinds in there.items()
            if kind in kinds and topic.endswith(SUFFIX[transport])
            and topic not in heard and not topic.startswith(outputs)
        ]  # fmt: skip
        if near:
            remedy = ours.instead(near[0].removesuffix('/compressed'))
            switch = '' if transport == own else f' image_transport:={transport}'
            return f'no publisher, but one of {near[0]}: {remedy}{switch}'
    return 'no publisher'
