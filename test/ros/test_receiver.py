"""receiver.py: what comes in a thread of its own is what was sent."""

import threading
import time

import pytest
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from tag_perception.ros import wire
from tag_perception.ros.receiver import Receiver
from tag_perception.ros.wire import read_image

from .fakes import make_image
from .test_wire import choose, every_way, fields


@pytest.fixture
def receiver(client):
    made = Receiver(client)
    yield made
    made.destroy()


def connect(receiver, publisher, spin_until, client):
    receiver.start()
    spin_until(lambda: publisher.get_subscription_count() > 0, client)


@every_way
def test_messages_are_those_sent_and_stay_so(client, receiver, spin_until, monkeypatch, way):
    choose(way, monkeypatch)
    received: list[tuple[memoryview, int]] = []
    receiver.subscribe(Image, 'wire', lambda *came: received.append(came), qos_profile=5, raw=True)
    publisher = client.create_publisher(Image, 'wire', 5)
    connect(receiver, publisher, spin_until, client)
    begin_ns = time.time_ns()
    sent = [make_image(size=(60 * n, 80), frame_id=f'eye{n}') for n in (1, 3, 2)]
    for image in sent:
        publisher.publish(image)
    spin_until(lambda: len(received) == 3, client)
    assert [fields(read_image(message)) for message, _ in received] == [fields(i) for i in sent]
    assert all(begin_ns <= published_ns <= time.time_ns() for _, published_ns in received)
    kept = read_image(received[0][0])
    del received[:]  # the image looks at the memory of the message, which must not be given back
    for image in sent:
        publisher.publish(image)
    spin_until(lambda: len(received) == 3, client)
    assert fields(kept) == fields(sent[0])


def test_messages_of_other_subscriptions_are_deserialised(client, receiver, spin_until):
    received: list[CameraInfo] = []
    receiver.subscribe(
        CameraInfo, 'info', lambda message, _: received.append(message), qos_profile=5
    )
    publisher = client.create_publisher(CameraInfo, 'info', 5)
    connect(receiver, publisher, spin_until, client)
    publisher.publish(CameraInfo(width=7))
    spin_until(lambda: received, client)
    assert received[0].width == 7


def test_what_came_together_is_handled_in_the_order_of_the_topics(client, receiver, spin_until):
    order: list[str] = []
    go, busy = threading.Event(), threading.Event()

    def first(message: CameraInfo, _: int) -> None:
        order.append('info')
        busy.set()
        assert go.wait(60)

    receiver.subscribe(CameraInfo, 'info', first, qos_profile=5)
    receiver.subscribe(Image, 'wire', lambda *_: order.append('image'), qos_profile=5, raw=True)
    infos = client.create_publisher(CameraInfo, 'info', 5)
    images = client.create_publisher(Image, 'wire', 5)
    connect(receiver, images, spin_until, client)
    spin_until(lambda: infos.get_subscription_count() > 0, client)
    infos.publish(CameraInfo())
    assert busy.wait(60)
    images.publish(make_image())  # both come while the thread is busy
    infos.publish(CameraInfo())
    time.sleep(0.2)
    go.set()
    spin_until(lambda: len(order) == 3, client)
    assert order == ['info', 'info', 'image']


def test_an_error_is_logged_and_the_next_message_comes(client, receiver, spin_until, capfd):
    received: list[int] = []

    def fail_once(message: memoryview, published_ns: int) -> None:
        received.append(published_ns)
        if len(received) == 1:
            raise ValueError('no good')

    receiver.subscribe(Image, 'wire', fail_once, qos_profile=5, raw=True)
    publisher = client.create_publisher(Image, 'wire', 5)
    connect(receiver, publisher, spin_until, client)
    publisher.publish(make_image())
    publisher.publish(make_image())
    spin_until(lambda: len(received) == 2, client)
    assert 'a callback failed: ValueError: no good' in capfd.readouterr().err


def test_what_is_no_message_is_passed_over(client, receiver, spin_until):
    received: list[int] = []
    receiver.subscribe(CameraInfo, 'info', lambda *_: received.append(1), qos_profile=5)
    publisher = client.create_publisher(CameraInfo, 'info', 5)
    connect(receiver, publisher, spin_until, client)
    publisher.publish(b'\0\1\0\0' + b'\xff' * 9)
    publisher.publish(CameraInfo())
    spin_until(lambda: received, client)


def test_an_error_of_rcl_does_not_end_the_thread(client, receiver, spin_until, monkeypatch):
    received: list[int] = []
    plain, failures = wire.take, []

    def take(subscription):
        if not failures:
            failures.append(1)
            raise RuntimeError('rcl has it wrong')
        return plain(subscription)

    monkeypatch.setattr(wire, 'take', take)
    receiver.subscribe(Image, 'wire', lambda *_: received.append(1), qos_profile=5, raw=True)
    publisher = client.create_publisher(Image, 'wire', 5)
    connect(receiver, publisher, spin_until, client)
    publisher.publish(make_image())
    spin_until(lambda: received, client)
    assert failures


def test_nothing_comes_after_the_end(client, spin_until):
    received: list[object] = []
    receiver, other = Receiver(client), []
    receiver.subscribe(Image, 'wire', lambda *_: received.append(1), qos_profile=5, raw=True)
    client.create_subscription(Image, 'wire', other.append, 5)
    publisher = client.create_publisher(Image, 'wire', 5)
    receiver.start()
    spin_until(lambda: publisher.get_subscription_count() == 2, client)
    receiver.destroy()
    publisher.publish(make_image())
    spin_until(lambda: len(other) == 1, client)
    spin_until(lambda: publisher.get_subscription_count() == 1, client)
    assert received == []


@every_way
def test_there_is_no_message_to_take(client, receiver, monkeypatch, way):
    choose(way, monkeypatch)
    subscription = receiver.subscribe(Image, 'wire', lambda *_: None, qos_profile=5, raw=True)
    receiver.start()
    assert wire.take(subscription) is None


def test_an_event_of_a_subscription_is_told(client, receiver, spin_until):
    told: list[object] = []
    receiver.subscribe(
        Image, 'wire', lambda *_: None, qos_profile=5, raw=True,
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=told.append),
    )  # fmt: skip
    receiver.start()
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    client.create_publisher(Image, 'wire', best_effort)
    spin_until(lambda: len(told) == 1, client)
