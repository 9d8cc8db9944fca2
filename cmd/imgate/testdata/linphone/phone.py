#!/usr/bin/env python3
"""A phone made of liblinphone, without a screen and without sound:

    phone.py DIRECTORY PROXY USER DOMAIN PASSWORD

PROXY is where it registers, such as "sip:192.0.2.1:5060;transport=tcp", whose
certificate isn't checked. It keeps what it has in DIRECTORY, and is
the same device of USER whenever it is started. It wraps messages in
CPIM and asks for notifications, as the app does. It prints what happens as JSON
objects, one a line, and takes commands the same way:

    {"do": "message", "to": USER, "text": …, "tag": …}
    {"do": "compose", "to": USER}         says that it is typing
    {"do": "read", "to": USER}            says that all from USER was displayed
    {"do": "plain"}                       wraps and asks no more
"""
import ctypes
import glob
import json
import os
import queue
import sys
import threading
import time
import uuid

directory, proxy, user, domain, password = sys.argv[1:]

RC = f"""[misc]
uuid={uuid.uuid5(uuid.NAMESPACE_DNS, user + "." + domain)}

[sip]
default_proxy=0
sip_port=-1
sip_tcp_port=-1
sip_tls_port=-1
use_ipv6=0
verify_server_certs=0
verify_server_cn=0

[net]
firewall_policy=0

[proxy_0]
reg_proxy=<{proxy}>
reg_route=<{proxy}>
reg_identity=sip:{user}@{domain}
reg_sendregister=1
reg_expires=600
publish=0

[auth_info_0]
username={user}
passwd={password}
realm={domain}
domain={domain}
"""

STATES = ["idle", "in progress", "delivered", "not delivered", "file transfer error", "file transfer done",
          "delivered to user", "displayed", "file transfer in progress", "pending delivery"]
REGISTRATIONS = ["none", "progress", "registered", "cleared", "failed", "refreshing"]


def say(**event):
    print(json.dumps(event), flush=True)


def load():
    """The library, whose functions mostly take and return pointers."""
    name = sorted(glob.glob("/usr/lib/*/liblinphone.so.*"))[0]
    lib = ctypes.CDLL(name)
    for returns_text in ("linphone_address_get_username", "linphone_chat_message_get_utf8_text", "linphone_chat_message_get_content_type"):
        getattr(lib, returns_text).restype = ctypes.c_char_p
    for returns_pointer in (
            "linphone_factory_get", "linphone_factory_create_core_3", "linphone_factory_create_core_cbs", "linphone_core_get_default_account",
            "linphone_account_get_params", "linphone_account_params_clone", "linphone_core_get_im_notif_policy",
            "linphone_core_get_chat_room_from_uri", "linphone_chat_room_create_message_from_utf8", "linphone_chat_message_get_from_address",
            "linphone_chat_room_get_peer_address"):
        getattr(lib, returns_pointer).restype = ctypes.c_void_p
    return lib


linphone = load()


def pointer(value):
    return ctypes.c_void_p(value)


class Phone:
    def __init__(self):
        os.makedirs(os.path.join(directory, ".local/share/linphone"), exist_ok=True)
        os.environ["HOME"] = directory
        os.environ.pop("XDG_DATA_HOME", None)
        rc = os.path.join(directory, "linphonerc")
        with open(rc, "w", encoding="utf-8") as file:
            file.write(RC)
        factory = pointer(linphone.linphone_factory_get())
        self.core = pointer(linphone.linphone_factory_create_core_3(factory, rc.encode(), None, None))
        self.callbacks = self.listen(factory)
        linphone.linphone_core_start(self.core)
        self.wrap(True)
        self.sent = []  # [tag, message, state]
        self.registration = None

    def listen(self, factory):
        received = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(self.received)
        composing = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(self.composing)
        callbacks = pointer(linphone.linphone_factory_create_core_cbs(factory))
        linphone.linphone_core_cbs_set_message_received(callbacks, received)
        linphone.linphone_core_cbs_set_is_composing_received(callbacks, composing)
        linphone.linphone_core_add_callbacks(self.core, callbacks)
        return received, composing

    def account(self):
        return pointer(linphone.linphone_core_get_default_account(self.core))

    def wrap(self, on):
        params = pointer(linphone.linphone_account_params_clone(pointer(linphone.linphone_account_get_params(self.account()))))
        linphone.linphone_account_params_enable_cpim_in_basic_chat_room(params, int(on))
        linphone.linphone_account_set_params(self.account(), params)
        policy = pointer(linphone.linphone_core_get_im_notif_policy(self.core))
        (linphone.linphone_im_notif_policy_enable_all if on else linphone.linphone_im_notif_policy_clear)(policy)

    def room(self, peer):
        return pointer(linphone.linphone_core_get_chat_room_from_uri(self.core, f"sip:{peer}@{domain}".encode()))

    def received(self, _core, _room, message):
        message = pointer(message)
        text = linphone.linphone_chat_message_get_utf8_text(message)
        who = linphone.linphone_address_get_username(pointer(linphone.linphone_chat_message_get_from_address(message)))
        kind = linphone.linphone_chat_message_get_content_type(message)
        say(event="message", **{"from": who.decode()}, text=(text or b"").decode(), type=(kind or b"").decode())

    def composing(self, _core, room):
        room = pointer(room)
        who = linphone.linphone_address_get_username(pointer(linphone.linphone_chat_room_get_peer_address(room)))
        say(event="composing", **{"from": who.decode()}, on=bool(linphone.linphone_chat_room_is_remote_composing(room)))

    def do(self, command):
        what = command["do"]
        if what == "message":
            room = self.room(command["to"])
            message = pointer(linphone.linphone_chat_room_create_message_from_utf8(room, command["text"].encode()))
            linphone.linphone_chat_message_send(message)
            self.sent.append([command.get("tag"), message, None])
        elif what == "compose":
            linphone.linphone_chat_room_compose(self.room(command["to"]))
        elif what == "read":
            linphone.linphone_chat_room_mark_as_read(self.room(command["to"]))
        elif what == "plain":
            self.wrap(False)
        else:
            say(event="error", reason=f"no command {what}")

    def look(self):
        """Says what has changed."""
        registration = linphone.linphone_account_get_state(self.account())
        if registration != self.registration:
            self.registration = registration
            say(event=REGISTRATIONS[registration])
        for sent in self.sent:
            state = linphone.linphone_chat_message_get_state(sent[1])
            if state != sent[2]:
                sent[2] = state
                say(event="state", tag=sent[0], state=STATES[state])

    def run(self, commands):
        while True:
            linphone.linphone_core_iterate(self.core)
            self.look()
            try:
                command = commands.get_nowait()
            except queue.Empty:
                time.sleep(0.01)
                continue
            if command is None:
                os._exit(0)  # the library would take its time
            self.do(command)


def read(commands):
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)


todo = queue.Queue()
threading.Thread(target=read, args=(todo,), daemon=True).start()
Phone().run(todo)
