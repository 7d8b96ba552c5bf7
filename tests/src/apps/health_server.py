# A gRPC server with grpc.health.v1.Health. The file `mode` says how it behaves.
#
# Debian has gRPC for Python and not its package of health checks: the two messages, of one field each, are put in
# and out of bytes here.
import os
import sys
import time
from concurrent import futures

import grpc

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
SERVING, NOT_SERVING = 1, 2


def check(request, context):
    with open(os.path.join(DIRECTORY, "mode")) as file:
        mode = file.read()
    if mode == "slow":
        time.sleep(1)
    if mode == "overloaded":
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many orders")
    # HealthCheckRequest { string service = 1; }
    service = request[2:].decode()
    if service != "shop.Orders" or mode == "forgetful":
        context.abort(grpc.StatusCode.NOT_FOUND, "")
    # HealthCheckResponse { ServingStatus status = 1; }
    return bytes([8, NOT_SERVING if mode == "not serving" else SERVING])


class Health(grpc.GenericRpcHandler):
    def service(self, call):
        with open(os.path.join(DIRECTORY, "mode")) as file:
            mode = file.read()
        if call.method == "/grpc.health.v1.Health/Check" and mode != "bare":
            return grpc.unary_unary_rpc_method_handler(check)
        return None


server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
server.add_generic_rpc_handlers((Health(),))
server.add_insecure_port("0.0.0.0:" + sys.argv[1])
server.start()
server.wait_for_termination()
