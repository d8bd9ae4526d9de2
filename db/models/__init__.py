"""All models. Importing this package registers every table in `Base.metadata`."""

from db.models.account_exports import AccountExport
from db.models.api_keys import ApiKey, ApiUsage
from db.models.attempts import AttemptCount, KnownAddress
from db.models.audit import AuditEvent
from db.models.brands import Brand
from db.models.changes import Change, ChangeKind, PendingTouch
from db.models.comments import PredictionComment
from db.models.destinations import DeliveryState, Destination, DestinationKind, ExportDelivery
from db.models.emails import EmailStatus, QueuedEmail
from db.models.exports import Export, ExportItem, ExportStatus
from db.models.generation_models import GenerationModel
from db.models.generations import (
    Generation,
    GenerationStatus,
    Prediction,
    PredictionPublication,
    PredictionShare,
    PredictionStatus,
    TaskCallback,
)
from db.models.guidelines import Guidelines, GuidelinesShotType, GuidelinesSubject
from db.models.idempotency import IdempotencyKey
from db.models.identity_providers import (
    IdentityProvider,
    IdentityProviderDomain,
    ProviderSignIn,
    UserIdentity,
)
from db.models.imports import (
    ImportImageStatus,
    ImportStatus,
    ProductImport,
    ProductImportImage,
    ProductImportResult,
    ResultStatus,
)
from db.models.media import MediaCheck, MediaResource, Upload, UploadStatus
from db.models.metadata_entries import MetadataEntry
from db.models.organizations import Invitation, Membership, Organization, Role
from db.models.presets import BackgroundPreset, ResolutionPreset, ShotType
from db.models.products import CutoutStatus, Product, ProductImage, ProductImageCutout, ProductState
from db.models.review_links import ReviewLink
from db.models.row_counts import RowCount
from db.models.second_factors import FactorType, SecondFactor, SecondFactorChallenge
from db.models.shootings import (
    Look,
    LookGuidelines,
    LookProduct,
    LookShotType,
    Shooting,
    ShootingPhase,
    Shot,
    ShotStatus,
)
from db.models.styles import Style
from db.models.subjects import Subject, SubjectBaseImage
from db.models.subscriptions import CreditMovement, MovementKind, PaymentStatus, Subscription
from db.models.usage import UsageDimension, UsageRecord
from db.models.users import AccountDeletion, EmailChange, PasswordResetToken, RefreshToken, TokenFamily, User
from db.models.webhooks import DeliveryStatus, WebhookDelivery, WebhookEndpoint

__all__ = [
    "AccountDeletion",
    "AccountExport",
    "ApiKey",
    "ApiUsage",
    "AttemptCount",
    "AuditEvent",
    "BackgroundPreset",
    "Brand",
    "Change",
    "ChangeKind",
    "CreditMovement",
    "CutoutStatus",
    "DeliveryState",
    "DeliveryStatus",
    "Destination",
    "DestinationKind",
    "EmailChange",
    "EmailStatus",
    "Export",
    "ExportDelivery",
    "ExportItem",
    "ExportStatus",
    "FactorType",
    "Generation",
    "GenerationModel",
    "GenerationStatus",
    "Guidelines",
    "GuidelinesShotType",
    "GuidelinesSubject",
    "IdempotencyKey",
    "IdentityProvider",
    "IdentityProviderDomain",
    "ImportImageStatus",
    "ImportStatus",
    "Invitation",
    "KnownAddress",
    "Look",
    "LookGuidelines",
    "LookProduct",
    "LookShotType",
    "MediaCheck",
    "MediaResource",
    "Membership",
    "MetadataEntry",
    "MovementKind",
    "Organization",
    "PasswordResetToken",
    "PaymentStatus",
    "PendingTouch",
    "Prediction",
    "PredictionComment",
    "PredictionPublication",
    "PredictionShare",
    "PredictionStatus",
    "Product",
    "ProductImage",
    "ProductImageCutout",
    "ProductImport",
    "ProductImportImage",
    "ProductImportResult",
    "ProductState",
    "ProviderSignIn",
    "QueuedEmail",
    "RefreshToken",
    "ResolutionPreset",
    "ResultStatus",
    "ReviewLink",
    "Role",
    "RowCount",
    "SecondFactor",
    "SecondFactorChallenge",
    "Shooting",
    "ShootingPhase",
    "Shot",
    "ShotStatus",
    "ShotType",
    "Style",
    "Subject",
    "SubjectBaseImage",
    "Subscription",
    "TaskCallback",
    "TokenFamily",
    "Upload",
    "UploadStatus",
    "UsageDimension",
    "UsageRecord",
    "User",
    "UserIdentity",
    "WebhookDelivery",
    "WebhookEndpoint",
]
