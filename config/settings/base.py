"""The embedded default: one machine, SQLite, a queue that needs no server, loopback only."""

from datetime import timedelta
from pathlib import Path

from csp.constants import NONCE, NONE, SELF

from config.settings import environment

BASE_DIR = Path(__file__).resolve().parent.parent.parent

# What is kept, and where we are reached
DATA_DIR = environment.read_data_dir("DATA_DIR", default=BASE_DIR / "var")
PORT = environment.read_whole_number("PORT", default=8000, lowest=1, highest=65535)
SECRET_KEY = environment.read_secret_key("DJANGO_SECRET_KEY", data_dir=DATA_DIR)
DEBUG = environment.read_flag("DJANGO_DEBUG", default=False)
ALLOWED_HOSTS = environment.read_list("DJANGO_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = environment.read_origins("DJANGO_CSRF_TRUSTED_ORIGINS")
DATABASES = {"default": environment.read_database("DATABASE_URL", data_dir=DATA_DIR)}

# The bell. The work itself is rows in the database, so this queue may be lost without loss of work.
EMBEDDED_BROKER = "atomicfiles://localhost"
CELERY_BROKER_URL = environment.read_broker("CELERY_BROKER_URL", default=EMBEDDED_BROKER)
CELERY_KEY_PREFIX = environment.env.str("CELERY_KEY_PREFIX", "")  # for a Redis that serves others too
QUEUE_DIR = DATA_DIR / "queue"

# What speaks. A model server is called only when its host and port are named here: host:port, separated by commas.
MODEL_HOSTS = environment.read_list("NESTBOX_MODEL_HOSTS", default=[])
MODEL_SERVER_SECONDS = environment.read_whole_number("NESTBOX_MODEL_SECONDS", default=120, lowest=1, highest=3600)
SEARCH_URL = environment.env.str("NESTBOX_SEARCH_URL", "")  # of a service that projects may search for evidence
SEARCH_SECONDS = environment.read_whole_number("NESTBOX_SEARCH_SECONDS", default=10, lowest=1, highest=300)
GENERATION_DEVICE = environment.env.str("NESTBOX_DEVICE", "auto")  # auto, cpu, cuda, cuda:1
GENERATION_REQUESTS_AT_ONCE = environment.read_whole_number(
    "NESTBOX_REQUESTS_AT_ONCE", default=16, lowest=1, highest=256
)
GENERATION_ROWS_AT_ONCE = environment.read_whole_number("NESTBOX_ROWS_AT_ONCE", default=64, lowest=1, highest=4096)
GENERATION_MODELS_IN_MEMORY = environment.read_whole_number("NESTBOX_MODELS_IN_MEMORY", default=2, lowest=1, highest=64)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "csp",
    "axes",
    "feedback",
    "annotate",
    "rewardtrain",
    "config",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "config.headers.PermissionsPolicyMiddleware",
    "config.headers.NoStoreMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]

# Who may come in
AUTH_USER_MODEL = "feedback.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

# An account is locked for one address, so that a stranger cannot lock its owner out.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "429.html"
AXES_CLIENT_IP_CALLABLE = "config.addresses.client_address"
AXES_VERBOSE = False
BEHIND_PROXY = False

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 60 * 60
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

# Static files are served by the web process itself, straight from the source folders: nothing to collect.
STATIC_URL = "static/"
STATIC_ROOT: Path | None = None
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# Drafts hold whole dialogues; a request larger than this is refused before it is read.
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024

LOG_LEVEL = environment.read_choice("LOG_LEVEL", default="INFO", choices=environment.LOG_LEVELS)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": ["console"], "level": LOG_LEVEL, "propagate": False},
        "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "axes": {"level": "WARNING"},
        # Beat rings every two seconds: one line for every ring would bury the rest. Failures are still logged.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
    },
}
