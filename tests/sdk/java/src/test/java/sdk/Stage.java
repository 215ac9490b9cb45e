package sdk;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** The stage that tests/sdk/stage sets up: a server, and the backend and the network of an application. */
final class Stage {
    static final String URL = System.getenv("ROOMCAST_URL");

    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private Stage() {}

    static String token(String options) {
        return ask("GET", "/token?" + options, "");
    }

    static String gate() {
        return post("/gate");
    }

    static String post(String path) {
        return ask("POST", path, "");
    }

    static String api(String method, String body) {
        return ask("POST", "/api/" + method, body);
    }

    private static String ask(String method, String path, String body) {
        URI address = URI.create(System.getenv("ROOMCAST_STAGE") + path);
        HttpRequest request = HttpRequest.newBuilder(address).method(method, HttpRequest.BodyPublishers.ofString(body)).build();
        try {
            HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IllegalStateException(method + " " + path + ": " + answer.body());
            }
            return answer.body();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
