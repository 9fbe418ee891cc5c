import pytest
from fastapi import APIRouter, FastAPI

from control_plane.web.permissions import endpoints, needs, require_declared


def app_with(*dependencies):
    router = APIRouter(prefix="/v1/fleets/{fleet}")
    router.get("/thing", dependencies=list(dependencies))(lambda: None)
    app = FastAPI()
    app.include_router(router)
    return app


def test_a_route_that_says_nothing_stops_the_application():
    with pytest.raises(ValueError, match="does not say who may call it"):
        require_declared(app_with().routes, "/v1/fleets/")


def test_a_route_that_says_two_things_stops_it_as_well():
    with pytest.raises(ValueError, match="does not say who may call it"):
        require_declared(app_with(needs("read"), needs("operate")).routes, "/v1/fleets/")


def test_routes_outside_of_fleets_need_not_say_anything():
    app = app_with(needs("read"))
    app.get("/v1/health")(lambda: None)
    require_declared(app.routes, "/v1/fleets/")


def test_a_check_that_found_nothing_to_look_at_is_none():
    with pytest.raises(ValueError, match="nothing below"):
        require_declared(app_with().routes, "/v2/")


def test_what_a_route_says_can_be_read():
    app = app_with(needs("operate"))
    (found,) = endpoints(app.routes, "/v1/fleets/")
    assert (found.path, found.methods) == ("/v1/fleets/{fleet}/thing", ("GET",))
    assert found.permission == "operate"


def test_every_route_of_the_api_says_what_it_needs(api):
    found = endpoints(api.client.app.routes, "/v1/fleets/")
    assert len(found) > 20
    assert all(each.permission for each in found)
