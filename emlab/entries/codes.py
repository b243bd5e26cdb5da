"""e-mission's numbers for what a phone senses, how people travel, and what its state machine does. Imports nothing."""

from __future__ import annotations

import enum


class Motion(enum.IntEnum):
    """What a phone senses: `type` of background/motion_activity, sensed_mode of sections (MotionTypes)."""

    IN_VEHICLE = 0
    BICYCLING = 1
    ON_FOOT = 2
    STILL = 3
    UNKNOWN = 4
    TILTING = 5
    WALKING = 7
    RUNNING = 8
    NONE = 9
    STOPPED_WHILE_IN_VEHICLE = 10
    AIR_OR_HSR = 11


class Mode(enum.IntEnum):
    """How somebody travelled, as inferred: sensed_mode of analysis/inferred_section (PredictedModeTypes)."""

    UNKNOWN = 0
    WALKING = 1
    BICYCLING = 2
    BUS = 3
    TRAIN = 4
    CAR = 5
    AIR_OR_HSR = 6
    SUBWAY = 7
    TRAM = 8
    LIGHT_RAIL = 9


class State(enum.IntEnum):
    """Where a phone's state machine stands: curr_state of statemachine/transition."""

    START = 0
    WAITING_FOR_TRIP_START = 1
    ONGOING_TRIP = 2
    TRACKING_STOPPED = 3


class Transition(enum.IntEnum):
    """What moves a phone's state machine: transition of statemachine/transition (TransitionType)."""

    INITIALIZE = 0
    EXITED_GEOFENCE = 1
    STOPPED_MOVING = 2
    STOP_TRACKING = 3
    BOOTED = 4
    INIT_COMPLETE = 5
    TRIP_STARTED = 6
    RECEIVED_SILENT_PUSH = 7
    TRIP_END_DETECTED = 8
    TRIP_RESTARTED = 9
    END_TRIP_TRACKING = 10
    TRACKING_STOPPED = 11
    NOP = 12
    VISIT_STARTED = 13
    VISIT_ENDED = 14
    NONE = 15
    DATA_PUSHED = 16
    START_TRACKING = 17
    BLE_BEACON_FOUND = 18
    BLE_BEACON_LOST = 19


class BeaconEvent(enum.IntEnum):
    """What a phone hears of a vehicle's beacon: eventType of background/bluetooth_ble (BLEEventTypes)."""

    REGION_ENTER = 0
    REGION_EXIT = 1
    RANGE_UPDATE = 2


class Stage(enum.IntEnum):
    """The stages of e-mission's pipeline that its tools ask about (pipeline_stage of Stage_pipeline_state)."""

    USERCACHE = 0
    TRIP_SEGMENTATION = 1
    CLEAN_RESAMPLING = 11
    CREATE_CONFIRMED_OBJECTS = 13
    CREATE_COMPOSITE_OBJECTS = 17
